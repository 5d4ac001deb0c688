// Small helpers for pages. Text from outside becomes text nodes here, never markup.

export const byId = (id) => document.getElementById(id);

/**
 * Makes an element.
 * @param {string} tag - its name
 * @param {object} [properties] - class, onclick and so on as functions, other values as attributes; null leaves one out
 * @param {...(Node|string|null)} children - elements, or text
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Makes a link to another site, or plain text where browsers would run the address or not understand it.
 * @param {string} address - any text
 * @param {string} text - what is shown
 * @param {string} [about] - more words for screen readers
 */
export function outsideLink(address, text, about = "") {
  if (!/^https?:\/\//i.test(address ?? "")) return el("span", {}, text);
  return el(
    "a",
    { href: address, target: "_blank", rel: "noopener noreferrer" },
    text,
    el("span", { class: "visually-hidden" }, `${about} (new tab)`),
  );
}

/** Makes a button; `about` is added to its name for screen readers, so that not all are called alike. */
export function button(text, onclick, { kind = "outline-contrast", about = "", action = "" } = {}) {
  return el(
    "button",
    { type: "button", class: `btn btn-sm btn-${kind}`, "data-action": action || null, onclick },
    text,
    about ? el("span", { class: "visually-hidden" }, ` ${about}`) : null,
  );
}

export const badge = (text, kind = "") => el("span", { class: `plasma-badge ${kind}`.trim() }, text);

/** Returns "1.5 GB" for a number of bytes, "64 MB" where that would be close to nothing. */
export function gigabytes(bytes) {
  if (bytes < 1024 ** 3 / 10) return `${Math.floor(bytes / 1024 ** 2)} MB`;
  return `${Number((bytes / 1024 ** 3).toFixed(2))} GB`;
}

/** Makes "2 GB, 1.5 CPU", which breaks at the comma alone; a dash when nothing is known. */
export function limits(memory, cpu, gpus = 0) {
  const parts = [];
  if (memory) parts.push(gigabytes(memory));
  if (cpu) parts.push(`${Number(cpu.toFixed(2))} CPU`);
  if (gpus) parts.push(`${gpus} GPU`);
  return parts.length
    ? parts.map((part, index) => el("span", { class: "plasma-whole" }, part + (index < parts.length - 1 ? ", " : "")))
    : ["–"];
}

const STEPS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

function since(date) {
  const seconds = (date.getTime() - Date.now()) / 1000;
  const step = STEPS.find(([, size]) => Math.abs(seconds) >= size);
  return step ? relative.format(Math.round(seconds / step[1]), step[0]) : "just now";
}

/** Makes a <time> that says how long ago something was, and when exactly on hover. */
export function ago(iso) {
  const date = new Date(iso ?? "");
  if (!iso || Number.isNaN(date.getTime())) return el("span", {}, "–");
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, since(date));
}

/** Brings all times in an element up to date. */
export function refreshTimes(parent) {
  for (const time of parent.querySelectorAll("time")) {
    const text = since(new Date(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Has a screen reader say something that others see where it happens. */
export function announce(text) {
  const place = byId("announcer");
  place.textContent = "";
  // Emptied first, so that the same sentence is said twice when it happens twice.
  requestAnimationFrame(() => (place.textContent = text));
}

/**
 * Copies text, and returns whether the browser allowed that.
 * @param {string} text - the text
 * @param {Element} parent - something on the page that is shown, and may hold the text for a moment
 */
export async function copyText(text, parent) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS browsers have no clipboard for scripts but this one.
    const area = el("textarea", { "aria-hidden": "true", class: "visually-hidden" });
    area.value = text;
    parent.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Shows a sentence in an element made for it, or hides that. */
export function show(element, text = "") {
  element.textContent = text;
  element.hidden = !text;
}

/**
 * Keeps a list's rows in step with data, touching only those that changed, so that focus and reading position stay.
 * @param {HTMLElement} parent - holds the rows
 * @param {Array<object>} items - the data, in order
 * @param {function(object): string} keyOf - tells rows apart
 * @param {function(object): HTMLElement} make - makes a row
 */
export function reconcile(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((row) => [row.dataset.key, row]));
  const focused = document.activeElement;
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const version = JSON.stringify(item);
    let row = old.get(key);
    old.delete(key);
    if (!row || row.dataset.version !== version) {
      const action = row?.contains(focused) ? focused.dataset.action : null;
      const fresh = make(item);
      fresh.dataset.key = key;
      fresh.dataset.version = version;
      if (row) {
        if (row === place) place = fresh;
        row.replaceWith(fresh);
      }
      row = fresh;
      if (action !== null)
        (row.querySelector(`[data-action="${CSS.escape(action)}"]`) ?? row.querySelector("button"))?.focus();
    }
    if (row === place) place = place.nextElementSibling;
    else parent.insertBefore(row, place);
  }
  for (const row of old.values()) row.remove();
}

/** Tells whether all words of a search are somewhere in a text. */
export function matches(search, text) {
  const content = text.toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => content.includes(word));
}

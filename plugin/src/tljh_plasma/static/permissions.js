// The permissions page: which groups may start which environment.

import { path, request } from "./api.js";
import { announce, byId, el, outsideLink, show } from "./dom.js";
import { chip } from "./environment_form.js";
import { ListPage } from "./list_page.js";

// With more groups than this, those that an environment does not have fold away.
const FEW = 12;

let policy = "open";
let groups = [];
// Groups by image, where they differ from what is saved.
const changed = new Map();

const same = (one, other) => one.length === other.length && one.every((name) => other.includes(name));
const now = (item) => changed.get(item.image) ?? item.groups;

function effect(item) {
  const names = [...now(item)].sort();
  if (!names.length) return policy === "open" ? "Everybody may start it." : "Only administrators may start it.";
  const missing = names.filter((name) => !groups.find((group) => group.name === name)?.exists);
  if (missing.length === names.length) return "Only administrators may start it: its groups do not exist.";
  return `Members of ${names.filter((name) => !missing.includes(name)).join(", ")} may start it.`;
}

function toggle(item, name, on, row) {
  const names = on ? [...now(item), name].sort() : now(item).filter((other) => other !== name);
  if (same(names, item.groups)) changed.delete(item.image);
  else changed.set(item.image, names);
  mark(item, row);
  drawBar();
}

/** Shows in a row what its environment's groups mean, and whether that is saved. */
function mark(item, row) {
  row.classList.toggle("changed", changed.has(item.image));
  row.querySelector(".effect").textContent = effect(item);
  row.querySelector(".unsaved").hidden = !changed.has(item.image);
}

function makeRow(item) {
  const chosen = now(item);
  const known = new Map(groups.map((group) => [group.name, group]));
  const names = [...new Set([...known.keys(), ...item.groups, ...chosen])].sort();
  const title = `name-${item.image}`;
  const row = el(
    "article",
    { class: "plasma-card plasma-permission", "aria-labelledby": title },
    el(
      "div",
      {},
      el("h2", { id: title }, item.name),
      el(
        "p",
        { class: "plasma-small mb-0" },
        outsideLink(item.source_url, item.image, `, source of ${item.name}`),
        item.owner ? ` · added by ${item.owner}` : "",
      ),
    ),
  );
  const offered = [];
  const more = [];
  for (const name of names) {
    const group = known.get(name) ?? { name, exists: false, configured: false };
    const has = chosen.includes(name) || item.groups.includes(name);
    // Groups that are not to be had any more can be taken away and not given.
    if (!has && !(group.exists && group.configured !== false)) continue;
    const box = chip(group, chosen.includes(name), (event) => toggle(item, name, event.target.checked, row));
    (has || names.length <= FEW ? offered : more).push(box);
  }
  row.append(
    el(
      "fieldset",
      {},
      el("legend", { class: "visually-hidden" }, `Groups that may start ${item.name}`),
      el("div", { class: "plasma-chips" }, ...offered),
      more.length
        ? el(
            "details",
            {},
            el("summary", {}, `Add one of ${more.length} more groups`),
            el("div", { class: "plasma-chips mt-2" }, ...more),
          )
        : null,
      names.length ? null : el("p", { class: "plasma-small mb-0" }, "There are no groups yet."),
    ),
    el(
      "p",
      { class: "plasma-small mb-0" },
      el("span", { class: "effect" }),
      " ",
      el("strong", { class: "unsaved", hidden: true }, "Not saved yet."),
    ),
  );
  mark(item, row);
  return row;
}

function drawBar() {
  const count = changed.size;
  if (count) show(byId("saved"));
  byId("save-bar").hidden = count === 0;
  byId("changes").textContent = count
    ? `${count === 1 ? "One environment" : `${count} environments`} changed, not saved yet.`
    : "";
}

const page = new ListPage({
  load: async () => {
    const answer = await request("GET", path("permissions"));
    policy = answer.default;
    groups = answer.groups;
    return answer.environments;
  },
  keyOf: (item) => item.image,
  make: makeRow,
  textOf: (item) => [item.name, item.image, ...now(item)].join(" "),
  things: "environments",
  after: drawBar,
});

function redraw() {
  page.rows.replaceChildren();
  page.draw();
}

async function start() {
  if (!(await page.refresh())) return;
  const without =
    policy === "open"
      ? "Environments without a group are open to everybody."
      : "Environments without a group are closed: only administrators may start them.";
  byId("policy").textContent = `Members of an environment's groups may start it; so may administrators. ${without}`;
  show(byId("warning"), warning());
}

/** Returns what is odd about the groups themselves, or nothing. */
function warning() {
  if (!groups.length) return "There are no groups to choose from: add some to plasma.groups in the hub's settings.";
  const missing = groups.filter((group) => !group.exists).map((group) => group.name);
  if (!missing.length) return "";
  const which = missing.length === 1 ? "This group does" : "These groups do";
  return `${which} not exist on this server, so nobody is a member: ${missing.join(", ")}.`;
}

byId("save-bar").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("save");
  if (button.disabled || !changed.size) return;
  button.disabled = true;
  const sent = new Map(changed);
  try {
    await request("PUT", path("permissions"), { environments: Object.fromEntries(sent) });
  } catch (error) {
    show(byId("problem"), error.message);
    byId("problem").scrollIntoView({ block: "nearest" });
    return;
  } finally {
    button.disabled = false;
  }
  show(byId("problem"));
  for (const item of page.items) {
    const names = sent.get(item.image);
    if (!names) continue;
    item.groups = [...names];
    if (same(now(item), item.groups)) changed.delete(item.image);
  }
  redraw();
  const which = sent.size === 1 ? "one environment" : `${sent.size} environments`;
  show(byId("saved"), `The permissions of ${which} are saved.`);
  announce(byId("saved").textContent);
  byId("filter").focus();
});

byId("discard").addEventListener("click", () => {
  changed.clear();
  redraw();
  announce("The changes are discarded.");
  byId("filter").focus();
});

window.addEventListener("beforeunload", (event) => {
  if (changed.size) event.preventDefault();
});

start();

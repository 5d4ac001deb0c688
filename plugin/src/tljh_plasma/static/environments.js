// The environments page.

import { path, request } from "./api.js";
import { EnvironmentForm } from "./environment_form.js";
import { BuildLog } from "./build_log.js";
import { confirm } from "./dialogs.js";
import { ago, announce, badge, button, byId, el, gigabytes, limits, outsideLink } from "./dom.js";
import { ListPage } from "./list_page.js";
import { Webhook } from "./webhook.js";

// How often to look while something is being built, in milliseconds.
const INTERVAL = 3000;
const STATUS = {
  built: ["Built", "good"],
  building: ["Building", "busy"],
  queued: ["Waiting", "busy"],
  failed: ["Failed", "bad"],
  archived: ["Archived", ""],
};

const isBusy = (environment) => environment.status === "building" || environment.status === "queued";

function cell(label, ...content) {
  return el("td", { "data-label": label }, el("div", {}, ...content));
}

function status(environment) {
  const [text, kind] = STATUS[environment.status] ?? [environment.status, ""];
  const words = [];
  if (environment.status === "failed" && environment.message) words.push(environment.message);
  if (environment.status === "archived") words.push("It has no image: nobody can start it until it is built again.");
  if (environment.status !== "built" && environment.has_image)
    words.push("People can start the image that was built before.");
  if (environment.previous) words.push("The former image is in use: somebody went back to it.");
  if (environment.users.length) words.push(`In use by ${some(environment.users)}.`);
  return cell(
    "Status",
    badge(text, kind),
    words.map((sentence) => el("div", { class: "plasma-small" }, sentence)),
  );
}

function source(environment) {
  // Commits are long, and known by how they begin.
  const reference = /^[0-9a-f]{40}$/.test(environment.ref) ? environment.ref.slice(0, 12) : environment.ref || "newest";
  return cell(
    "Source",
    el("div", {}, environment.repo || environment.reference),
    el(
      "div",
      { class: "plasma-small" },
      "Reference: ",
      outsideLink(environment.source_url, reference, ` of ${environment.name}`),
    ),
  );
}

function groups(environment) {
  if (!environment.groups.length) return cell("Groups", el("span", { class: "plasma-small" }, "None"));
  return cell(
    "Groups",
    environment.groups.map((name) => el("span", { class: "plasma-tag" }, name)),
  );
}

function some(names) {
  const more = names.length - 3;
  return names.slice(0, 3).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** What an environment costs, and what it is good for: lines of texts and elements. */
function housekeeping({ size, build_seconds: seconds, last_used: used, used_by: people }) {
  const took = seconds === null ? "" : `built in ${duration(seconds)}`;
  const costs = [size ? gigabytes(size) : "", took].filter(Boolean).join(", ");
  const by = people === 1 ? "one person" : `${people} people`;
  return [costs ? [costs] : null, used ? ["Used ", ago(used), `, by ${by}`] : ["No use known"]].filter(Boolean);
}

function duration(seconds) {
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

function makeRow(environment) {
  const about = environment.name;
  const actions = [button("Log", () => log.open(environment), { about: `of ${about}`, action: "log" })];
  if (!isBusy(environment)) {
    const archived = environment.status === "archived";
    actions.push(
      button(archived ? "Build again" : "Rebuild", () => (archived ? restore(environment) : form.open("build", environment)), {
        about,
        action: "rebuild",
      }),
      archived ? null : button("Archive", () => archive(environment), { about, action: "archive" }),
    );
    if (environment.former) {
      const [text, of] = environment.previous ? ["Use the newest", "image of"] : ["Go back", "to the former image of"];
      actions.push(button(text, () => exchange(environment), { about: `${of} ${about}`, action: "exchange" }));
    }
  }
  actions.push(
    button("Edit", () => form.open("change", environment), { about, action: "edit" }),
    environment.reference
      ? null
      : button("Webhook", () => webhook.open(environment), { about: `of ${about}`, action: "webhook" }),
    button("Remove", () => remove(environment), { about, action: "remove", kind: "danger" }),
  );
  return el(
    "tr",
    {},
    el(
      "td",
      {},
      el("div", { class: "plasma-name" }, environment.name),
      environment.description ? el("div", {}, environment.description) : null,
      el("div", { class: "plasma-small" }, environment.image),
      environment.opens ? el("div", { class: "plasma-small" }, `Opens with ${environment.opens}`) : null,
      environment.source === "pillar"
        ? el("div", { class: "plasma-small" }, "Kept by pillar: the next apply undoes changes made here.")
        : null,
    ),
    status(environment),
    source(environment),
    cell("Limits", ...limits(environment.memory, environment.cpu, environment.gpus)),
    groups(environment),
    cell(
      "Created",
      ago(environment.created),
      environment.owner ? el("div", { class: "plasma-small" }, `by ${environment.owner}`) : null,
      ...housekeeping(environment).map((words) => el("div", { class: "plasma-small" }, ...words)),
    ),
    el("td", {}, el("div", { class: "plasma-actions" }, ...actions)),
  );
}

async function archive(environment) {
  const { name, users } = environment;
  const paragraphs = [
    "Its image goes, with the former one, and nobody can start it. How it is built is kept, with description, groups and " +
      "limits: one click builds it again. Files in people's homes stay.",
  ];
  if (users.length) paragraphs.push(`It is in use by ${users.join(", ")}: it can be archived when their servers have stopped.`);
  const done = await confirm({
    title: `Archive ${name}?`,
    paragraphs,
    action: "Archive",
    run: () => request("POST", path("environments", environment.image, "archive"), {}),
  });
  if (!done) return;
  announce(`${name} is archived.`);
  await refresh();
}

/** Builds an archived environment again, as it was built before. */
async function restore(environment) {
  try {
    await request("POST", path("environments", environment.image, "build"), {});
  } catch (error) {
    // Such as a repository that wants credentials: the form takes them.
    announce(error.message);
    form.open("build", environment);
    return;
  }
  await refresh();
  log.open(environment);
}

/** Puts the other one of the two images in use. */
async function exchange(environment) {
  const { name, previous, former } = environment;
  const of = former.created ? ` of ${new Date(former.created).toLocaleString()}` : "";
  const done = await confirm({
    title: previous ? `Use the newest image of ${name}?` : `Go back to the former image of ${name}?`,
    paragraphs: [
      `Servers that start from now on use the image${of}. Those that run stay as they are, and so do files in homes.`,
      "Nothing is built, and you can change back at any time until the next build.",
    ],
    action: previous ? "Use the newest" : "Go back",
    run: () => request("PATCH", path("environments", environment.image), { previous: !previous }),
  });
  if (!done) return;
  announce(previous ? `The newest image of ${name} is in use.` : `The former image of ${name} is in use.`);
  await refresh();
}

async function remove(environment) {
  const busy = isBusy(environment);
  const paragraphs = [
    busy
      ? "Its build is ended."
      : "Its image, build log, description and groups are removed. Files in people's homes stay.",
  ];
  if (environment.users.length) {
    paragraphs.push(
      `It is in use by ${environment.users.join(", ")}: it can be removed when their servers have stopped.`,
    );
  }
  const done = await confirm({
    title: `Remove ${environment.name}?`,
    paragraphs,
    action: "Remove",
    run: () => request("DELETE", path("environments", environment.image)),
  });
  if (!done) return;
  announce(`${environment.name} is removed.`);
  await refresh();
  byId("add").focus();
}

let timer = null;
let before = new Map();

/** Says what changed since the last look, and looks again as long as something is being built. */
function afterDrawing() {
  for (const item of page.items) {
    const old = before.get(item.image);
    if (old && old !== item.status && (item.status === "built" || item.status === "failed")) {
      announce(item.status === "built" ? `${item.name} is built.` : `The build of ${item.name} failed.`);
    }
  }
  before = new Map(page.items.map((item) => [item.image, item.status]));
}

async function refresh() {
  clearTimeout(timer);
  timer = null;
  const worked = await page.refresh();
  // After a failure too: the hub may be restarting while a build goes on.
  if (page.items.some(isBusy) && (worked || !document.hidden))
    timer = setTimeout(refresh, document.hidden ? 10 * INTERVAL : INTERVAL);
}

const page = new ListPage({
  load: async () => (await request("GET", path("environments"))).environments,
  keyOf: (item) => item.image,
  make: makeRow,
  textOf: (item) =>
    [item.name, item.image, item.description, item.repo, item.reference, item.ref, item.status, ...item.groups, ...item.users].join(
      " ",
    ),
  things: "environments",
  after: afterDrawing,
});
const log = new BuildLog(byId("log"), refresh);
const webhook = new Webhook(byId("webhook"), refresh);
const form = new EnvironmentForm(byId("edit"), async (mode, image, name) => {
  await refresh();
  const environment = page.items.find((item) => item.image === image);
  announce(mode === "change" ? `${name} is saved.` : `The build of ${environment?.name ?? name} has started.`);
  if (mode !== "change" && environment) log.open(environment);
});

byId("add").addEventListener("click", () => form.open("add"));
byId("add-first").addEventListener("click", () => form.open("add"));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && timer) refresh();
});
refresh();

// The servers page.

import { path, request } from "./api.js";
import { confirm } from "./dialogs.js";
import { ago, announce, badge, button, byId, el, limits } from "./dom.js";
import { ListPage } from "./list_page.js";

// How often to look while a server is starting or stopping, in milliseconds.
const INTERVAL = 2000;
const STATE = {
  running: ["Running", "good"],
  starting: ["Starting", "busy"],
  stopping: ["Stopping", "busy"],
  stopped: ["Stopped", ""],
};
const all = byId("rows").dataset.all === "1";

const isBusy = (server) => server.state === "starting" || server.state === "stopping";
const nameOf = (server) => server.server || "default server";

function cell(label, ...content) {
  return el("td", { "data-label": label }, el("div", {}, ...content));
}

function makeRow(server) {
  const about = all ? `${nameOf(server)} of ${server.user}` : nameOf(server);
  const [text, kind] = STATE[server.state] ?? [server.state, ""];
  const actions = [];
  if (server.state === "running" || server.state === "starting") {
    actions.push(
      el(
        "a",
        { class: "btn btn-sm btn-outline-contrast", href: server.url, "data-action": "open" },
        "Open",
        el("span", { class: "visually-hidden" }, ` ${about}`),
      ),
    );
  }
  if (server.may_stop && server.state !== "stopping") {
    actions.push(button("Stop", () => stop(server, about), { about, action: "stop", kind: "danger" }));
  }
  return el(
    "tr",
    {},
    all ? cell("User", el("span", { class: "plasma-name" }, server.user)) : null,
    cell("Server", el("span", { class: server.server ? "plasma-name" : "plasma-small" }, server.server || "Default")),
    cell("State", badge(text, kind)),
    cell(
      "Environment",
      el("div", {}, server.environment || "–"),
      server.image && server.image !== server.environment ? el("div", { class: "plasma-small" }, server.image) : null,
    ),
    cell("Limits", ...limits(server.memory, server.cpu)),
    cell("Running since", ago(server.started)),
    cell("Last activity", ago(server.last_activity)),
    el("td", {}, el("div", { class: "plasma-actions" }, ...actions)),
  );
}

async function stop(server, about) {
  const parts = server.server ? [server.user, server.server] : [server.user];
  const done = await confirm({
    title: `Stop the ${about}?`,
    paragraphs: ["What runs in it ends, and changes to notebooks that were not saved are lost. Files stay."],
    action: "Stop",
    run: () => request("DELETE", path("servers", ...parts)),
  });
  if (!done) return;
  announce(`The ${about} is stopping.`);
  await refresh();
  byId("refresh").focus();
}

let timer = null;

async function refresh() {
  clearTimeout(timer);
  timer = null;
  await page.refresh();
  if (page.items.some(isBusy) && !document.hidden) timer = setTimeout(refresh, INTERVAL);
}

const page = new ListPage({
  load: async () => (await request("GET", path("servers"))).servers,
  keyOf: (item) => `${item.user}/${item.server}`,
  make: makeRow,
  textOf: (item) => [item.user, nameOf(item), item.environment, item.image, item.state].join(" "),
  things: "servers",
});

byId("refresh").addEventListener("click", async () => {
  await refresh();
  announce(`${page.items.length} ${page.items.length === 1 ? "server" : "servers"}.`);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
refresh();

/* Servers of the hub's users: the containers that Plasma has labelled, as Docker sees them.
   The protocol is the Docker Engine's API, which Cockpit reaches through the engine's socket with the rights of the
   person who is logged in, or of root where they have administrative access. */
"use strict";

(() => {
  const cockpit = window.cockpit;
  const SOCKET = "/var/run/docker.sock";
  const EVERY = 5000; // milliseconds between two looks
  const AT_A_TIME = 8; // questions to Docker
  const docker = cockpit.http(SOCKET, { superuser: "try" });
  const element = (id) => document.getElementById(id);
  const limits = new Map(); // by container: its CPUs, 0 for no limit
  const samples = new Map(); // by container: { used, at } of the last look
  let rows = new Map();
  let chosen = null;
  let looking = false;

  /* The look: what people chose in Cockpit, which keeps it where all its pages see it. */

  function applyTheme() {
    const style = localStorage.getItem("shell:style") || "auto";
    const dark = style === "dark" || (style === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  }

  window.addEventListener("storage", applyTheme);
  window.addEventListener("cockpit-style", applyTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
  applyTheme();

  /* Asking Docker. */

  async function ask(path, parameters) {
    return JSON.parse(await docker.get(path, parameters));
  }

  async function listed() {
    const filters = JSON.stringify({ label: ["org.plasma.user"] });
    const found = await ask("/containers/json", { all: "1", filters });
    return found
      .map((container) => ({
        id: container.Id,
        user: container.Labels["org.plasma.user"] || "",
        server: container.Labels["org.plasma.server"] || "",
        environment: container.Labels["org.plasma.environment"] || container.Image,
        state: container.State,
        started: container.Created * 1000,
      }))
      .sort((one, other) => one.user.localeCompare(other.user) || one.server.localeCompare(other.server));
  }

  async function use(container) {
    const { id } = container;
    if (!limits.has(id)) {
      const config = (await ask(`/containers/${id}/json`)).HostConfig;
      limits.set(id, config.NanoCpus ? config.NanoCpus / 1e9 : config.CpuQuota / (config.CpuPeriod || 100000) || 0);
    }
    const stats = await ask(`/containers/${id}/stats`, { stream: "false", "one-shot": "true" });
    const now = { used: stats.cpu_stats.cpu_usage.total_usage, at: Date.parse(stats.read) };
    const before = samples.get(id);
    samples.set(id, now);
    const memory = stats.memory_stats;
    const details = memory.stats || {};
    // As `docker stats` shows it: without what the kernel may take back (cgroup v2, then v1).
    const cached = details.inactive_file ?? details.total_inactive_file ?? 0;
    return {
      cpus: before && now.at > before.at ? (now.used - before.used) / 1e6 / (now.at - before.at) : null,
      cpuLimit: limits.get(id),
      memory: memory.usage === undefined ? null : Math.max(memory.usage - cached, 0),
      memoryLimit: memory.limit,
    };
  }

  async function eachAtATime(items, work) {
    const left = [...items];
    const worker = async () => {
      while (left.length) await work(left.shift());
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  }

  /* Showing it. Texts are set as texts: names and labels are what people made them. */

  function megabytes(bytes) {
    return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
  }

  function rowOf(container) {
    const row = document.createElement("tr");
    const cells = ["th", "td", "td", "td", "td", "td", "td", "td"].map((tag) => document.createElement(tag));
    cells[0].scope = "row";
    cells[4].className = cells[5].className = "number";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Stop";
    button.setAttribute("aria-label", `Stop ${nameOf(container)}`);
    button.addEventListener("click", () => question(container));
    cells[7].append(button);
    row.append(...cells);
    return row;
  }

  function nameOf(container) {
    return container.server ? `${container.server} of ${container.user}` : `the server of ${container.user}`;
  }

  function show(containers) {
    const kept = new Map();
    for (const container of containers) {
      const row = rows.get(container.id) || rowOf(container);
      const started = new Date(container.started).toLocaleString();
      const texts = [container.user, container.server || "default", container.environment, container.state];
      texts.forEach((text, index) => setText(row.cells[index], text));
      setText(row.cells[6], started);
      row.cells[7].firstChild.disabled = container.state !== "running";
      kept.set(container.id, row);
    }
    for (const known of [limits, samples]) {
      for (const id of known.keys()) if (!kept.has(id)) known.delete(id);
    }
    rows = kept;
    const body = element("servers");
    const wanted = [...rows.values()];
    // Rows that stay where they are keep the focus.
    if (wanted.length !== body.rows.length || wanted.some((row, index) => row !== body.rows[index])) {
      body.replaceChildren(...wanted);
    }
    const running = containers.filter((container) => container.state === "running").length;
    setText(element("summary"), running === 1 ? "1 server runs." : `${running || "No"} servers run.`);
    element("table").hidden = !containers.length;
    element("problem").hidden = true;
  }

  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function showUse(row, found) {
    const cpus = found.cpus === null ? "…" : found.cpus.toFixed(2);
    setText(row.cells[4], found.cpuLimit ? `${cpus} of ${found.cpuLimit}` : cpus);
    const limit = found.memoryLimit ? ` of ${megabytes(found.memoryLimit)}` : "";
    setText(row.cells[5], found.memory === null ? "" : megabytes(found.memory) + limit);
  }

  function showProblem(error) {
    const denied = ["access-denied", "authentication-failed", "not-authorized"].includes(error.problem);
    setText(
      element("problem"),
      denied || /permission denied/i.test(error.message)
        ? "Docker is open to administrators of the server: turn on administrative access in the bar above."
        : `Docker does not answer: ${error.message || error.problem}`,
    );
    element("problem").hidden = false;
    element("table").hidden = true;
    setText(element("summary"), "");
  }

  async function look() {
    if (looking || document.hidden) return;
    looking = true;
    try {
      const containers = await listed();
      show(containers);
      await eachAtATime(
        containers.filter((container) => container.state === "running"),
        async (container) => {
          try {
            showUse(rows.get(container.id), await use(container));
          } catch (error) {
            // It ended meanwhile; the next look shows that.
            if (error.status !== 404 && error.status !== 409) throw error;
          }
        },
      );
    } catch (error) {
      showProblem(error);
    } finally {
      looking = false;
    }
  }

  /* Stopping. The hub notices by itself. */

  function question(container) {
    chosen = container;
    setText(element("question"), `Stop ${nameOf(container)}?`);
    element("failure").hidden = true;
    element("stop").disabled = false;
    element("dialog").showModal();
    element("cancel").focus();
  }

  element("stop").addEventListener("click", async () => {
    element("stop").disabled = true;
    try {
      await docker.post(`/containers/${chosen.id}/stop?t=10`, "");
      element("dialog").close();
    } catch (error) {
      setText(element("failure"), `It was not stopped: ${error.message || error.problem}`);
      element("failure").hidden = false;
      element("stop").disabled = false;
    }
    look();
  });

  cockpit.permission({ admin: true }).addEventListener("changed", look);
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY);
  look();
})();

// The form to add an environment, to change one, and to build one again.

import { path, request } from "./api.js";
import { closable } from "./dialogs.js";
import { byId, el, show } from "./dom.js";

const MODES = {
  add: {
    title: () => "Add environment",
    submit: "Add and build",
    fields: ["repo", "ref", "name", "memory", "cpu", "gpus", "opens", "description", "buildargs", "username", "password"],
  },
  build: {
    title: (name) => `Rebuild ${name}`,
    submit: "Rebuild",
    fields: ["memory", "cpu", "buildargs", "username", "password"],
  },
  change: { title: (name) => `Edit ${name}`, submit: "Save", fields: ["gpus", "opens", "description"] },
};

// What can be said before the service is asked; it checks everything once more.
const CHECKS = {
  repo: (text) => (text ? "" : "Enter the address of the repository."),
  name: (text) =>
    !text || /^[a-z0-9]+([._-][a-z0-9]+)*$/i.test(text)
      ? ""
      : "Use letters and digits, with single dots, hyphens or underscores between them.",
  memory: checkNumber,
  cpu: checkNumber,
  gpus: (text) => (/^\d*$/.test(text) ? "" : "Write a whole number, such as 1."),
  buildargs: (text) =>
    text.split("\n").every((line) => !line.trim() || /^[A-Za-z_]\w*=/.test(line.trim()))
      ? ""
      : "Write one NAME=value on each line, the name of letters, digits and underscores.",
};

function checkNumber(text) {
  if (!text) return "";
  if (text.includes(",")) return "Write a point and not a comma, as in 1.5.";
  return /^\d+(\.\d+)?$/.test(text) && Number(text) > 0 ? "" : "Write a number above zero, such as 2 or 0.5.";
}

// Which field a refusal of the service is about, by the words of its sentence.
const ABOUT = [
  ["opens", /cannot open with/i],
  ["gpus", /\bgpus?\b/i],
  ["repo", /repositor|url/i],
  ["ref", /reference/i],
  ["name", /\bname\b/i],
  ["memory", /memory/i],
  ["cpu", /\bcpus?\b/i],
  ["description", /description/i],
  ["groups", /\bgroup/i],
  ["buildargs", /build argument/i],
  ["password", /password|credential/i],
];

export class EnvironmentForm {
  /**
   * @param {HTMLDialogElement} dialog - the dialog with the form
   * @param {function(string, string, string): void} done - called with mode, image and name when something was done
   */
  constructor(dialog, done) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.done = done;
    this.submit = byId("edit-submit");
    closable(dialog);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    dialog.addEventListener("close", () => (byId("password").value = ""));
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  /**
   * Opens the form.
   * @param {"add"|"build"|"change"} mode - what for
   * @param {object} [environment] - of which one, as the API describes it
   */
  async open(mode, environment = null) {
    this.mode = mode;
    this.environment = environment;
    this.form.reset();
    this.clear();
    const { title, submit, fields } = MODES[mode];
    byId("edit-title").textContent = title(environment?.name);
    this.submit.textContent = submit;
    for (const part of this.form.querySelectorAll("[data-for]"))
      part.hidden = !part.dataset.for.split(" ").includes(mode);
    for (const details of this.form.querySelectorAll("details")) details.open = false;
    if (environment) {
      this.field("memory").value = Number((environment.memory / 1024 ** 3).toFixed(2));
      this.field("cpu").value = Number(environment.cpu.toFixed(2));
      this.field("gpus").value = environment.gpus || "";
      this.field("opens").value = environment.opens;
      this.field("description").value = environment.description;
      this.field("buildargs").value = environment.buildargs;
      byId("more-arguments").open = mode === "build" && Boolean(environment.buildargs);
    }
    this.before = Object.fromEntries(fields.map((name) => [name, this.field(name).value]));
    byId("groups").replaceChildren();
    show(byId("groups-help"), "Loading the groups");
    this.dialog.showModal();
    this.field(fields[0]).focus();
    if (mode !== "build") await this.loadGroups();
  }

  async loadGroups() {
    const { mode, environment } = this;
    const help = byId("groups-help");
    let answer;
    try {
      answer = await request("GET", path("permissions"));
    } catch (error) {
      // Without them everything else can still be filled in; the groups are then left as they are.
      this.groupsLoaded = false;
      show(help, `The groups cannot be shown: ${error.message}`);
      return;
    }
    if (!this.dialog.open || this.mode !== mode || this.environment !== environment) return;
    this.groupsLoaded = true;
    const chosen = new Set(environment?.groups ?? []);
    const offered = answer.groups.filter(
      (group) => chosen.has(group.name) || (group.exists && group.configured !== false),
    );
    byId("groups").replaceChildren(...offered.map((group) => chip(group, chosen.has(group.name))));
    const without = answer.default === "open" ? "everybody may start it" : "only administrators may start it";
    show(
      help,
      offered.length
        ? `Who may start it. Without a group ${without}.`
        : `There are no groups: ${without}. They are set in plasma.groups.`,
    );
  }

  clear() {
    show(byId("edit-problem"));
    for (const place of this.form.querySelectorAll(".invalid-feedback")) show(place);
    for (const input of this.form.querySelectorAll(".is-invalid")) {
      input.classList.remove("is-invalid");
      input.removeAttribute("aria-invalid");
    }
  }

  /** Shows what is wrong with a field next to it. */
  complain(name, sentence) {
    show(byId(`${name}-error`), sentence);
    const input = this.field(name);
    if (!(input instanceof Element)) return;
    const details = input.closest("details");
    if (details) details.open = true;
    input.classList.add("is-invalid");
    input.setAttribute("aria-invalid", "true");
  }

  async send() {
    if (this.submit.disabled) return;
    this.clear();
    const { fields } = MODES[this.mode];
    const values = Object.fromEntries(fields.map((name) => [name, this.field(name).value.trim()]));
    const wrong = fields.filter((name) => {
      const sentence = CHECKS[name]?.(values[name]);
      if (sentence) this.complain(name, sentence);
      return sentence;
    });
    if (wrong.length) {
      this.field(wrong[0]).focus();
      return;
    }
    this.submit.disabled = true;
    try {
      const image = await this.ask(values);
      const mode = this.mode;
      const name = this.environment?.name ?? values.name;
      this.dialog.close();
      this.done(mode, image, name);
    } catch (error) {
      this.explain(error);
    } finally {
      this.submit.disabled = false;
    }
  }

  async ask(values) {
    const groups = [...byId("groups").querySelectorAll("input:checked")].map((input) => input.value);
    if (this.mode === "add") return (await request("POST", path("environments"), { ...values, groups })).image;
    const image = this.environment.image;
    if (this.mode === "change") {
      await request("PATCH", path("environments", image), this.groupsLoaded ? { ...values, groups } : values);
    } else {
      // What was not changed stays as it is, also where that is the hub's default.
      const changed = Object.entries(values).filter(([name, value]) => value !== String(this.before[name]).trim());
      await request("POST", path("environments", image, "build"), Object.fromEntries(changed));
    }
    return image;
  }

  /** Shows a refusal of the service next to the field that it is about, where that can be told. */
  explain(error) {
    const shown =
      error.status === 400 ? ABOUT.filter(([name]) => name === "groups" || MODES[this.mode].fields.includes(name)) : [];
    const field = error.data?.field ?? shown.find(([, words]) => words.test(error.message))?.[0];
    if (field && byId(`${field}-error`)) {
      this.complain(field, error.message);
      const input = this.field(field);
      if (input instanceof HTMLElement) input.focus();
    } else {
      show(byId("edit-problem"), error.message);
      byId("edit-problem").scrollIntoView({ block: "nearest" });
    }
  }
}

/** Makes the checkbox of a group. */
export function chip(group, checked, onchange = () => {}) {
  const words = group.exists ? "" : " (does not exist)";
  return el(
    "label",
    { class: `plasma-chip${group.exists ? "" : " missing"}` },
    el("input", { type: "checkbox", class: "form-check-input", value: group.name, checked, onchange }),
    `${group.name}${words}`,
  );
}

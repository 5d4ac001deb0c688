// The webhook of an environment in a dialog: made, shown once, removed.

import { path, request, servicePrefix } from "./api.js";
import { closable } from "./dialogs.js";
import { announce, byId, show } from "./dom.js";

const WITH = "A push to the repository builds this environment again. The image in use stays until the new one is ready.";
const WITHOUT = "A webhook lets the platform that has the repository tell of each push, and this environment is built again then.";

export class Webhook {
  /**
   * @param {HTMLDialogElement} dialog - the dialog
   * @param {function(): void} changed - called after a change
   */
  constructor(dialog, changed) {
    this.dialog = dialog;
    this.changed = changed;
    closable(dialog);
    // The secret does not stay in the page.
    dialog.addEventListener("close", () => this.show(false));
    byId("webhook-make").addEventListener("click", () => this.change("POST"));
    byId("webhook-remove").addEventListener("click", () => this.change("DELETE"));
  }

  /** Opens the dialog with the webhook of an environment. */
  open(environment) {
    this.environment = environment;
    byId("webhook-title").textContent = `Webhook of ${environment.name}`;
    show(byId("webhook-problem"));
    this.show(environment.webhook);
    this.dialog.showModal();
  }

  show(exists, secret = "") {
    byId("webhook-state").textContent = exists ? WITH : WITHOUT;
    byId("webhook-make").textContent = exists ? "Make another one" : "Make a webhook";
    byId("webhook-remove").hidden = !exists;
    byId("webhook-made").hidden = !secret;
    byId("webhook-address").value = secret
      ? `${location.origin}${servicePrefix}push/${encodeURIComponent(this.environment.image)}`
      : "";
    byId("webhook-secret").value = secret;
  }

  async change(method) {
    show(byId("webhook-problem"));
    try {
      const { secret } = await request(method, path("environments", this.environment.image, "webhook"));
      this.show(Boolean(secret), secret);
      announce(secret ? "The webhook is made." : "The webhook is removed.");
      this.changed();
    } catch (error) {
      show(byId("webhook-problem"), error.message);
    }
  }
}

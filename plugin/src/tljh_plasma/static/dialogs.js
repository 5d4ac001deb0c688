// Native dialogs: the browser keeps the focus inside, closes them with Escape and gives the focus back.

import { el, show } from "./dom.js";

/** Makes the buttons with data-close close their dialog. */
export function closable(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
}

/**
 * Asks before something is done, does it, and shows in the dialog what keeps it from being done.
 * @param {object} question - title, paragraphs (texts), action (text of the button), run (async, does it)
 * @returns {Promise<boolean>} whether it was done
 */
export function confirm({ title, paragraphs, action, run }) {
  const problem = el("div", { class: "alert alert-danger", role: "alert", hidden: true });
  const go = el("button", { type: "submit", class: "btn btn-danger" }, action);
  const form = el(
    "form",
    { method: "dialog" },
    el("header", {}, el("h2", { id: "confirm-title" }, title)),
    el(
      "div",
      { class: "plasma-dialog-body" },
      paragraphs.map((text) => el("p", {}, text)),
      problem,
    ),
    el(
      "footer",
      {},
      el(
        "button",
        { type: "button", class: "btn btn-outline-contrast", "data-close": true, autofocus: true },
        "Cancel",
      ),
      go,
    ),
  );
  const dialog = el(
    "dialog",
    { class: "plasma-dialog plasma-dialog-narrow", "aria-labelledby": "confirm-title" },
    form,
  );
  closable(dialog);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let done = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      go.disabled = true;
      show(problem);
      try {
        await run();
        done = true;
        dialog.close();
      } catch (error) {
        show(problem, error.message);
        go.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
    dialog.showModal();
  });
}

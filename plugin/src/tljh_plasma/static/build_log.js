// The log of a build in a dialog, live while the build runs.

import { streamPath } from "./api.js";
import { closable } from "./dialogs.js";
import { byId, copyText, el } from "./dom.js";

// More lines than this slow browsers down, and nobody reads them there; copying copies all.
const MOST_LINES = 4000;
const ESCAPES = /\u001b(\[[0-?]*[ -/]*[@-~]|\][^\u0007]*(\u0007|\u001b\\)|[@-Z\\-_])/g;

export class BuildLog {
  /**
   * @param {HTMLDialogElement} dialog - the dialog
   * @param {function(): void} ended - called when a build that was watched has ended
   */
  constructor(dialog, ended) {
    this.dialog = dialog;
    this.ended = ended;
    this.text = byId("log-text");
    this.state = byId("log-state");
    this.note = byId("log-note");
    this.copied = byId("log-copied");
    this.followButton = byId("log-follow");
    closable(dialog);
    dialog.addEventListener("close", () => this.stop());
    this.text.addEventListener("scroll", () => this.scrolled());
    this.followButton.addEventListener("click", () => {
      this.setFollowing(true);
      this.text.focus();
    });
    byId("log-copy").addEventListener("click", () => this.copy());
  }

  /** Opens the dialog with the log of an environment. */
  open(environment) {
    this.environment = environment;
    byId("log-title").textContent = `Build log of ${environment.name}`;
    this.state.textContent = "Loading the log";
    this.note.textContent = "";
    this.copied.textContent = "";
    this.wasBusy = environment.status === "building" || environment.status === "queued";
    this.reset();
    this.dialog.showModal();
    this.text.focus();
    this.source = new EventSource(streamPath("environments", environment.image, "log"));
    // The service sends the log from its start, also after a lost connection.
    this.source.onopen = () => {
      this.reset();
      this.state.textContent = this.wasBusy ? "The build is running." : "";
    };
    this.source.onmessage = (event) => this.receive(JSON.parse(event.data));
    this.source.onerror = () => {
      const gone = this.source.readyState === EventSource.CLOSED;
      this.state.textContent = gone
        ? "The log cannot be loaded. Reload the page and try again."
        : "The connection is lost. Trying again.";
    };
  }

  stop() {
    this.source?.close();
    this.source = null;
  }

  reset() {
    this.all = "";
    this.lines = 0;
    this.pending = "";
    this.partial = null;
    this.text.replaceChildren();
    this.setFollowing(true);
  }

  receive({ phase, message }) {
    if (phase === "log") {
      this.pending += message;
      // Once for each picture the browser draws, however fast the lines come.
      this.frame ??= requestAnimationFrame(() => this.flush());
      return;
    }
    this.flush();
    this.stop();
    const sentence = phase === "built" ? message || "The build has succeeded." : message || "The build has failed.";
    this.state.replaceChildren(
      el(
        "span",
        { class: `plasma-badge ${phase === "built" ? "good" : "bad"}` },
        phase === "built" ? "Built" : "Failed",
      ),
      ` ${sentence}`,
    );
    if (this.wasBusy) this.ended();
  }

  /** Puts what has come since the last time on the page. */
  flush() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = null;
    if (!this.pending) return;
    const text = this.pending.replace(ESCAPES, "").replace(/\r+\n/g, "\n");
    this.pending = "";
    const pieces = text.split("\n");
    const added = document.createDocumentFragment();
    pieces.forEach((piece, index) => {
      const line = this.partial ?? added.appendChild(el("div"));
      // A carriage return starts the line anew: progress bars do that.
      const whole = line.textContent + piece;
      line.textContent = whole.slice(whole.lastIndexOf("\r", whole.length - 2) + 1);
      const ended = index < pieces.length - 1;
      if (ended) {
        this.all += `${line.textContent.replace(/\r$/, "")}\n`;
        this.lines += 1;
      }
      this.partial = ended ? null : line;
    });
    this.text.append(added);
    while (this.text.childElementCount > MOST_LINES) this.text.firstElementChild.remove();
    const hidden =
      this.lines > MOST_LINES ? ` The first ${this.lines - MOST_LINES} are not shown here; Copy has them.` : "";
    this.note.textContent = `${this.lines} ${this.lines === 1 ? "line" : "lines"}.${hidden}`;
    if (this.following) this.toEnd();
  }

  toEnd() {
    this.text.scrollTop = this.text.scrollHeight;
  }

  setFollowing(following) {
    this.following = following;
    this.followButton.hidden = following;
    if (following) this.toEnd();
  }

  /** Stops following when the reader scrolls up, and goes on at the end. */
  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.text;
    const atEnd = scrollHeight - scrollTop - clientHeight < 24;
    if (atEnd !== this.following) this.setFollowing(atEnd);
  }

  async copy() {
    const text = this.all + (this.partial?.textContent ?? "");
    this.copied.textContent = (await copyText(text, this.dialog))
      ? "The log is copied."
      : "The browser does not allow copying: select the lines and copy them.";
  }
}

// Shows notices of the server in JupyterLab: that the disk quota is used up, that memory was, that it runs in safe mode.
// And tells the server that somebody is there, for which JupyterLab's own requests are no sign (see plasma_server.py).
//
// A federated extension as JupyterLab loads them: an object at window._JUPYTERLAB[name] with init and get. It is
// written by hand and takes nothing of JupyterLab's, so that it works in every release that has such extensions. What
// is shown comes from the person's own server (see notices.py). Whatever goes wrong, nothing is shown and nothing said.

(() => {
  "use strict";

  const NAME = "plasma-notice";
  const EVERY = 30 * 1000;

  // JupyterLab's own notifications are in the lower corner. The colours are those of its theme, or of the light one.
  const STYLE = `
    #${NAME} {
      position: fixed; right: 3.5rem; top: 3.5rem; z-index: 10000; box-sizing: border-box;
      width: 28rem; max-width: calc(100vw - 4.5rem); max-height: calc(100vh - 4rem); overflow: auto;
      padding: .75rem 2.75rem .75rem 1rem; border: 1px solid var(--jp-border-color1, #bdbdbd);
      border-left: .4rem solid var(--jp-warn-color1, #f57c00); border-radius: 4px;
      background: var(--jp-layout-color1, #fff); color: var(--jp-ui-font-color0, #000);
      font: 14px/1.45 var(--jp-ui-font-family, sans-serif); box-shadow: 0 2px 8px rgba(0, 0, 0, .3);
    }
    #${NAME}[data-level="error"] { border-left-color: var(--jp-error-color1, #d32f2f); }
    #${NAME}:empty { display: none; }
    #${NAME} strong { display: block; margin-bottom: .25rem; font-size: 15px; }
    #${NAME} button {
      position: absolute; top: .4rem; right: .4rem; width: 2rem; height: 2rem; padding: 0; border: 0;
      border-radius: 4px; background: transparent; color: inherit; font: 20px/1 sans-serif; cursor: pointer;
    }
    #${NAME} button:hover { background: var(--jp-layout-color2, #eee); }
    #${NAME} button:focus-visible { outline: 2px solid currentcolor; }
  `;

  function cookie(name) {
    const found = document.cookie.match(`(?:^|; )${name}=([^;]*)`);
    return found ? found[1] : "";
  }

  // Whether mouse or keyboard were used since the server was last told.
  let present = false;

  /** Returns what there is to tell at this moment, the most important first: { level, title, text }. */
  async function read() {
    const config = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    const sign = present ? "&plasma_present=1" : "";
    present = false;
    const answer = await fetch(`${config.baseUrl}api/config/plasma_notice?${Date.now()}${sign}`, {
      headers: { Accept: "application/json", "X-XSRFToken": cookie("_xsrf") },
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
    if (!answer.ok) return [];
    const told = await answer.json();
    return [...((told.servers || {})[config.baseUrl] || []), told].filter((notice) => notice.title);
  }

  /** Returns the element of the notice, which is made on the first call: screen readers tell changes of what is there. */
  function place() {
    let element = document.getElementById(NAME);
    if (!element) {
      const style = document.createElement("style");
      style.textContent = STYLE;
      element = document.createElement("div");
      element.id = NAME;
      document.head.append(style);
      document.body.append(element);
    }
    return element;
  }

  const keyOf = (notice) => `${notice.level}: ${notice.title}`;

  /** Returns the keys of the notices that were dismissed in this tab. */
  function dismissed() {
    try {
      return JSON.parse(sessionStorage.getItem(NAME)) || [];
    } catch {
      return [];
    }
  }

  function show(notices) {
    const element = place();
    // Dismissed ones come back when they become worse, after they were gone, and in another tab.
    const keys = dismissed().filter((key) => notices.some((notice) => keyOf(notice) === key));
    sessionStorage.setItem(NAME, JSON.stringify(keys));
    const notice = notices.find((notice) => !keys.includes(keyOf(notice)));
    if (!notice) {
      element.replaceChildren();
      delete element.dataset.text;
      return;
    }
    if (element.dataset.text === notice.text) return;
    element.dataset.text = notice.text;
    element.dataset.level = notice.level;
    element.setAttribute("role", notice.level === "error" ? "alert" : "status");
    const title = document.createElement("strong");
    title.textContent = notice.title;
    const text = document.createElement("span");
    text.textContent = notice.text;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.setAttribute("aria-label", "Dismiss this notice");
    button.title = "Dismiss this notice";
    button.addEventListener("click", () => {
      sessionStorage.setItem(NAME, JSON.stringify([...dismissed(), keyOf(notice)]));
      show(notices);
    });
    element.replaceChildren(title, text, button);
  }

  async function look() {
    try {
      if (!document.hidden || present) show(await read());
    } catch {
      // The server stops, or is of another kind.
    }
  }

  const plugin = {
    id: `${NAME}:notice`,
    description: "Shows what the server has to tell.",
    autoStart: true,
    activate: () => {
      for (const kind of ["keydown", "pointerdown", "wheel"]) {
        document.addEventListener(kind, () => (present = true), { capture: true, passive: true });
      }
      look();
      setInterval(look, EVERY);
      document.addEventListener("visibilitychange", look);
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: () => Promise.resolve(),
    get: () => Promise.resolve(() => ({ __esModule: true, default: plugin })),
  };
})();

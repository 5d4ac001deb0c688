// Requests to the service's API. What goes wrong becomes an ApiError whose message is a sentence for the person.

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const servicePrefix = meta("plasma-service");

export class ApiError extends Error {
  /**
   * @param {string} message - one sentence for the person
   * @param {number} status - HTTP status, 0 when nothing answered
   * @param {object} data - the whole answer
   */
  constructor(message, status, data = {}) {
    super(message);
    this.status = status;
    this.data = data;
  }
}

const SENTENCES = {
  401: "You are no longer logged in. Reload the page to log in again.",
  403: "You may not do this, or are no longer logged in. Reload the page and try again.",
  404: "This is gone. Reload the page to see what there is now.",
  413: "This is too much at once.",
  503: "The hub is busy or restarting. Try again in a moment.",
};

function sentence(status) {
  return (
    SENTENCES[status] ??
    `The hub could not do this (status ${status}). Try again, and tell its administrator if it goes on.`
  );
}

/**
 * Returns the address of a part of the API: path("environments", image, "log").
 * @param {...string} parts - parts of the path, not yet encoded
 */
export function path(...parts) {
  return `${servicePrefix}api/${parts.map(encodeURIComponent).join("/")}`;
}

/**
 * Returns the address of a stream of events, which browsers ask for without headers: the token goes along in it.
 * @param {...string} parts - parts of the path, not yet encoded
 */
export function streamPath(...parts) {
  return `${path(...parts)}?_xsrf=${encodeURIComponent(meta("xsrf"))}`;
}

/**
 * Asks the API.
 * @param {string} method - HTTP method
 * @param {string} url - as path() returns it
 * @param {object} [body] - sent as JSON
 * @returns {Promise<object>} the answer; {} when it is empty
 * @throws {ApiError}
 */
export async function request(method, url, body) {
  // With every request: JupyterHub lets scripts read nothing either without it, since users' servers are on this host.
  const headers = { Accept: "application/json", "X-XSRFToken": meta("xsrf") };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      // To the login page: an answer for people and not for us.
      redirect: "error",
    });
  } catch {
    throw new ApiError("The hub does not answer. Check your connection, and reload the page.", 0);
  }
  const text = await answer.text();
  let data = {};
  try {
    data = text ? JSON.parse(text) : {};
  } catch {
    // A proxy's error page, for one.
    if (answer.ok) throw new ApiError(sentence(502), answer.status);
  }
  if (!answer.ok) throw new ApiError(data.message || sentence(answer.status), answer.status, data);
  return data;
}

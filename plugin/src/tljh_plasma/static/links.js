// The page that makes links.

import { path, request } from "./api.js";
import { announce, byId, copyText, el, show } from "./dom.js";

const FIELDS = ["image", "repo", "branch", "file", "opens"];

async function load() {
  try {
    const { environments } = await request("GET", path("environments"));
    const choices = environments.filter((environment) => environment.has_image);
    byId("image").replaceChildren(
      ...choices.map(({ image, name }) => el("option", { value: image }, name === image ? name : `${name} (${image})`)),
    );
    byId("make").disabled = !choices.length;
    show(byId("problem"), choices.length ? "" : "There is no environment that can be started yet.");
  } catch (error) {
    show(byId("problem"), error.message);
  }
}

byId("link").addEventListener("submit", async (event) => {
  event.preventDefault();
  show(byId("problem"));
  byId("made").hidden = true;
  const values = Object.fromEntries(FIELDS.map((name) => [name, byId(name).value.trim()]));
  try {
    const made = await request("POST", path("links"), values);
    // The service is on the hub's host.
    const address = `${location.origin}${made.path}`;
    byId("address").value = address;
    byId("try").href = address;
    show(byId("copied"));
    byId("made").hidden = false;
    announce("The link is made.");
    byId("copy").focus();
  } catch (error) {
    show(byId("problem"), error.message);
    byId("problem").scrollIntoView({ block: "nearest" });
  }
});
byId("copy").addEventListener("click", async () => {
  const copied = await copyText(byId("address").value, byId("made"));
  show(byId("copied"), copied ? "Copied." : "The browser does not allow copying: select the link and copy it.");
});
load();

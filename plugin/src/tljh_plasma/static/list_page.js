// What the pages with a list have in common: loading, finding, saying that there is nothing, and what went wrong.

import { byId, matches, reconcile, refreshTimes, show } from "./dom.js";

export class ListPage {
  /**
   * @param {object} options
   * @param {function(): Promise<Array<object>>} options.load - fetches the items
   * @param {function(object): string} options.keyOf - tells items apart
   * @param {function(object): HTMLElement} options.make - makes an item's row
   * @param {function(object): string} options.textOf - what the search looks in
   * @param {string} options.things - what the items are called
   * @param {function(): void} [options.after] - called whenever the list was drawn
   */
  constructor({ load, keyOf, make, textOf, things, after = () => {} }) {
    Object.assign(this, { load, keyOf, make, textOf, things, after });
    this.items = [];
    this.rows = byId("rows");
    this.filter = byId("filter");
    this.filter.addEventListener("input", () => this.draw());
  }

  /** Fetches the items and draws them. Returns whether that worked. */
  async refresh() {
    try {
      this.items = await this.load();
    } catch (error) {
      byId("loading").hidden = true;
      show(byId("problem"), error.message);
      return false;
    }
    show(byId("problem"));
    byId("loading").hidden = true;
    this.draw();
    return true;
  }

  /** Draws what is known. */
  draw() {
    const search = this.filter.value.trim();
    const shown = search ? this.items.filter((item) => matches(search, this.textOf(item))) : this.items;
    reconcile(this.rows, shown, this.keyOf, this.make);
    refreshTimes(this.rows);
    this.filter.disabled = this.items.length === 0;
    byId("empty").hidden = this.items.length > 0;
    const list = byId("list") ?? this.rows;
    list.hidden = shown.length === 0;
    show(
      byId("none"),
      this.items.length && !shown.length ? `None of the ${this.items.length} ${this.things} matches.` : "",
    );
    this.after();
  }
}

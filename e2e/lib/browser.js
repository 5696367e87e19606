// The browser, and the page as a user operates it.

import { AxeBuilder } from "@axe-core/playwright";
import { deepEqual } from "node:assert/strict";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ARGUMENTS,
  });
}

/** The page, navigated as a user does: by roles and names. */
export class TodoPage {
  constructor(page) {
    this.page = page;
    this.newTodo = page.getByRole("textbox", { name: "New todo" });
    this.list = page.getByRole("list", { name: "Todos" });
    this.rows = this.list.getByRole("listitem");
    this.left = page.getByRole("status").filter({ hasText: /items? left/ });
    this.clear = page.getByRole("button", { name: "Clear completed" });
    this.undo = page.getByRole("button", { name: "Undo" });
    this.alert = page.getByRole("alert").filter({ hasText: /\S/ });
  }

  row(text) {
    return this.rows.filter({ has: this.page.getByText(text, { exact: true }) });
  }

  tick(text) {
    return this.list.getByRole("checkbox", { name: text, exact: true });
  }

  button(action, text) {
    return this.list.getByRole("button", { name: `${action} ${text}`, exact: true });
  }

  editor(text) {
    return this.list.getByRole("textbox", { name: `Edit ${text}`, exact: true });
  }

  /** The link to a part of the list; its name ends with a count. */
  filter(name) {
    return this.page.getByRole("navigation").getByRole("link", { name: new RegExp(`^${name}( \\d+)?$`) });
  }

  async add(text) {
    await this.newTodo.fill(text);
    await this.page.getByRole("button", { name: "Add", exact: true }).click();
    await this.row(text).first().waitFor();
  }

  texts() {
    return this.list.locator(".text").allTextContents();
  }
}

/** Waits until colours stop changing: midway between two schemes they lack contrast. */
async function stillness(page) {
  await page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
}

/** Fails on any violation that axe finds, in light and dark mode. */
export async function expectAccessible(page) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await stillness(page);
    const { violations } = await new AxeBuilder({ page })
      .withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"])
      .analyze();
    const faults = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}`));
    deepEqual(faults, [], `in the ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: null });
}

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll } from 'vitest';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Where a Chromium is: `CHROMIUM_PATH`, Debian's place, or the search path. */
function findChromium(): string {
  const given = process.env['CHROMIUM_PATH'];
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const places = given
    ? [given]
    : ['/usr/bin/chromium', ...folders.flatMap((folder) => NAMES.map((name) => join(folder, name)))];
  const found = places.find(isProgram);
  if (found !== undefined) return found;
  throw new Error(
    given
      ? `CHROMIUM_PATH names no program: ${given}.`
      : 'The browser tests need Chromium: install it (apt-get install chromium) or set CHROMIUM_PATH.',
  );
}

/** Starts a browser that talks to nobody by itself; it is closed when the test file ends. */
export async function startBrowser(): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: findChromium(),
    args: [
      '--no-sandbox',
      '--headless=new',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  });
  afterAll(() => browser.close());
  return browser;
}

/** Picks a user in the sandbox's consent screen and presses a button. */
export async function decide(page: Page, zoomUserId: string, button: 'Allow' | 'Deny'): Promise<void> {
  await page.locator(`input[name="sandbox_user"][value="${zoomUserId}"]`).check();
  await page.getByRole('button', { name: button, exact: true }).click();
}

/** The addresses in a page's history, oldest first, as the browser keeps them. */
export async function historyOf(page: Page): Promise<string[]> {
  const session = await page.context().newCDPSession(page);
  const { entries } = await session.send('Page.getNavigationHistory');
  await session.detach();
  return entries.map(({ url }) => url);
}

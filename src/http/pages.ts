import { createHash } from 'node:crypto';

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem;color:#1b1f24}' +
  'h1{font-size:1.3rem}a{color:#0b5cad}@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}a{color:#7ab8ff}}';

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? '');

const hashOf = (content: string): string => `'sha256-${createHash('sha256').update(content).digest('base64')}'`;

/** A page of our own words; `script` and nothing else may run in it. */
function page(title: string, paragraphs: readonly string[], script = ''): { html: string; csp: string } {
  const html = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escape(title)}</title>
<style>${STYLE}</style></head><body><h1>${escape(title)}</h1>${paragraphs.map((text) => `<p>${text}</p>`).join('')}${
    script === '' ? '' : `<script>${script}</script>`
  }</body></html>`;
  const scripts = script === '' ? '' : ` script-src ${hashOf(script)};`;
  const csp = `default-src 'none'; style-src ${hashOf(STYLE)};${scripts} base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  return { html, csp };
}

/** The answer belongs to no trip of this browser, or the link is used up. Says nothing that came with the request. */
export const refusedPage = () =>
  page('This link cannot be used', [
    'It has expired, was used already, or was opened in another browser than the one that began.',
    'Please go back to the product you came from and connect Zoom again.',
  ]);

export const unavailablePage = () =>
  page('Please try again', ['The connection could not be finished just now. Please try again in a moment.']);

/** Someone added the app at the provider without having begun here. Nothing was connected. */
export const unsolicitedPage = (setupUrl: string | null) =>
  page('One more step', [
    'Zoom has added the app. It is not connected to your product yet, because the connection must be started there.',
    setupUrl === null
      ? 'Please go to the product and choose to connect Zoom.'
      : `<a href="${escape(setupUrl)}" rel="noreferrer">Continue to the product</a> and choose to connect Zoom.`,
  ]);

/**
 * The end of a trip without a return address: reports to the window that opened this one. A message reaches the opener
 * only if its origin is exactly one of `origins`.
 */
export function resultPage(origins: readonly string[], outcome: { connectCode: string } | { connectError: string }) {
  // `<` cannot end the script element early when it is written as an escape.
  const json = (value: unknown) => JSON.stringify(value).replaceAll('<', '\\u003c');
  const script = `(function(){var m=${json({ source: 'latchkey', ...outcome })},o=${json(origins)};if(window.opener){o.forEach(function(x){window.opener.postMessage(m,x)});window.setTimeout(function(){window.close()},300)}})()`;
  const done = 'connectCode' in outcome;
  return page(
    done ? 'Zoom answered' : 'Zoom was not connected',
    [
      done
        ? 'You can close this window; the product finishes the connection.'
        : 'You can close this window and try again.',
    ],
    script,
  );
}

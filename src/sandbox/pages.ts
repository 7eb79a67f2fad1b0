import { createHash } from 'node:crypto';
import type { Reply } from './http.js';

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1d2433;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}fieldset{border:1px solid #c7cdd8;border-radius:6px;margin:1rem 0}
label{display:block;padding:.25rem 0}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #dde2ea;padding:.4rem;text-align:left;vertical-align:top}
button{font:inherit;padding:.4rem 1rem;border:1px solid #1b5fc1;border-radius:6px;background:#fff;color:#1b5fc1;cursor:pointer}
button.main{background:#1b5fc1;color:#fff}code{overflow-wrap:anywhere}.note{color:#525c70;font-size:.9rem}`;

/**
 * Nothing is loaded from anywhere. `form-action` is left out because browsers apply it to the redirect that follows the
 * consent form, which goes to the app's own origin.
 */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Text that is safe to send as HTML: made by `markup` alone. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function render(value: string | Markup | readonly Markup[]): string {
  if (value instanceof Markup) return value.text;
  if (typeof value !== 'string') return value.map((each) => each.text).join('');
  return value.replaceAll(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** Template tag for HTML: every string that is put in is escaped. */
export const markup = (parts: TemplateStringsArray, ...values: (string | Markup | readonly Markup[])[]): Markup =>
  new Markup(parts.map((part, index) => part + (index < values.length ? render(values[index]!) : '')).join(''));

/** A whole page. The text between the style tags must stay exactly what `POLICY` has the hash of. */
export const page = (
  status: number,
  { title, body, outcome }: { title: string; body: Markup; outcome: string },
): Reply => ({
  status,
  headers: {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'same-origin',
    'cache-control': 'no-store',
  },
  body: markup`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><style>${new Markup(STYLE)}</style></head>
<body><main><h1>${title}</h1>
${body}
<p class="note">This is the local Zoom sandbox of Latchkey. It is not Zoom, and nothing here reaches Zoom.</p>
</main></body></html>`.text,
  outcome,
});

/** A page that ends an authorization without a redirect, as Zoom shows them. */
export const refusalPage = (text: string, outcome: string, status = 400): Reply =>
  page(status, { title: 'Authorization stopped', body: markup`<p>${text}</p>`, outcome });

export const hiddenFields = (params: Iterable<[string, string]>): Markup[] =>
  [...params].map(([name, value]) => markup`<input type="hidden" name="${name}" value="${value}">`);

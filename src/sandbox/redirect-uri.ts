import type { App } from './model.js';
import type { Knobs } from './knobs.js';

/** `http://127.0.0.1:{port}/{path}` without its port, or null for any other URI. */
function loopbackWithoutPort(uri: string): string | null {
  if (!URL.canParse(uri)) return null;
  const match = /^http:\/\/127\.0\.0\.1(?::\d{1,5})?(\/.*)?$/.exec(uri);
  return match === null ? null : (match[1] ?? '/');
}

/**
 * Whether the app registered this redirect URI: character by character, with one exception. A client that uses PKCE may
 * name any port on 127.0.0.1.
 *
 * @see https://developers.zoom.us/changelog/platform/pkce-loopback.md
 */
export function isRegisteredRedirect(app: App, uri: string, options: { hasPkce: boolean; knobs: Knobs }): boolean {
  if (options.knobs.refuseLocalhostRedirect && /^http:\/\/localhost(?=[:/?#]|$)/i.test(uri)) return false;
  if (app.redirectUris.includes(uri)) return true;
  const loopback = loopbackWithoutPort(uri);
  return (
    options.hasPkce && loopback !== null && app.redirectUris.some((each) => loopbackWithoutPort(each) === loopback)
  );
}

/** Adds parameters to a redirect URI and keeps what its query already has. */
export function withParams(uri: string, params: Record<string, string>): string {
  const url = new URL(uri);
  for (const [name, value] of Object.entries(params)) url.searchParams.append(name, value);
  return url.href;
}

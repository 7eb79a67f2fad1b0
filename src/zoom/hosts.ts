import type { ZoomEnvironment } from './zoom.js';

/** Where one of Zoom's environments is reached. */
export interface ZoomHost {
  /** Origin of `/oauth/authorize`, `/oauth/token` and `/oauth/revoke`, such as `https://zoom.us`. */
  oauthUrl: string;
  /** Base of the REST calls with its version, such as `https://api.zoom.us/v2`. */
  apiUrl: string;
}

export type ZoomHosts = Readonly<Record<ZoomEnvironment, ZoomHost>>;

/** Zoom's global and regional REST hosts (`api.zoom.us`, `api-eu.zoom.us`, …) and those of Zoom for Government. */
const ZOOM_API_HOST = /^api(-[a-z]{2,3})?\.(zoom\.us|zoomgov\.com)$/;

export interface Endpoints {
  oauth(environment: ZoomEnvironment, name: 'authorize' | 'token' | 'revoke'): URL;
  /** `path` starts with a slash. An `apiUrl` that is not allowed is passed over, as `apiOrigin` does. */
  api(environment: ZoomEnvironment, apiUrl: string, path: string): URL;
  /**
   * The REST origin to use with a token whose answer named `candidate`.
   *
   * A named origin is followed only if it is one of Zoom's REST hosts over https or the origin of a configured URL:
   * anywhere else the token would be handed to a stranger. It has to be an origin and nothing more, written as such
   * (one slash may follow). In every other case the environment's configured REST origin is the answer.
   */
  apiOrigin(environment: ZoomEnvironment, candidate: unknown): string;
}

/** @throws {TypeError} if a host's URL is not one. */
export function createEndpoints(hosts: ZoomHosts): Endpoints {
  const configured = new Set(
    [hosts.COMMERCIAL, hosts.GOVERNMENT].flatMap(({ oauthUrl, apiUrl }) => [
      new URL(oauthUrl).origin,
      new URL(apiUrl).origin,
    ]),
  );

  const apiOrigin: Endpoints['apiOrigin'] = (environment, candidate) => {
    const origin = originOf(candidate);
    if (origin !== null && (configured.has(origin) || isZoomApiOrigin(origin))) return origin;
    return new URL(hosts[environment].apiUrl).origin;
  };

  return {
    apiOrigin,
    oauth: (environment, name) => under(hosts[environment].oauthUrl, `/oauth/${name}`),
    api: (environment, apiUrl, path) => {
      const origin = apiOrigin(environment, apiUrl);
      const base = hosts[environment].apiUrl;
      return origin === new URL(base).origin ? under(base, path) : new URL(`/v2${path}`, origin);
    },
  };
}

function under(base: string, path: string): URL {
  const url = new URL(base);
  return new URL(url.pathname.replace(/\/+$/, '') + path, url.origin);
}

/** The text itself if it is an http or https origin in its normal form, with or without one slash after it. */
function originOf(candidate: unknown): string | null {
  if (typeof candidate !== 'string' || !URL.canParse(candidate)) return null;
  const { protocol, origin } = new URL(candidate);
  if (protocol !== 'https:' && protocol !== 'http:') return null;
  return candidate === origin || candidate === `${origin}/` ? origin : null;
}

function isZoomApiOrigin(origin: string): boolean {
  const { protocol, port, hostname } = new URL(origin);
  return protocol === 'https:' && port === '' && ZOOM_API_HOST.test(hostname);
}

const DEADLINE_MS = 15_000;

/** One browser: keeps cookies for each host and goes where it is told, a step at a time. */
export interface Browser {
  /** Opens an address without following where it sends on to. `location` is null where it does not. */
  open(url: string): Promise<{ status: number; location: URL | null }>;
}

/** A fresh browser, without cookies. */
export function createBrowser(): Browser {
  const cookies = new Map<string, Map<string, string>>();
  return {
    open: async (url) => {
      const { host } = new URL(url);
      const jar = cookies.get(host) ?? new Map<string, string>();
      cookies.set(host, jar);
      const response = await fetch(url, {
        redirect: 'manual',
        headers: { accept: 'text/html', cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
      for (const header of response.headers.getSetCookie()) {
        const [pair = ''] = header.split(';');
        const equals = pair.indexOf('=');
        const name = pair.slice(0, equals);
        if (/;\s*Max-Age=0(;|$)/i.test(header)) jar.delete(name);
        else jar.set(name, pair.slice(equals + 1));
      }
      await response.body?.cancel();
      const location = response.headers.get('location');
      return { status: response.status, location: location === null ? null : new URL(location, url) };
    },
  };
}

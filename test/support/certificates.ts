import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What a server shows of itself, as PEM. */
export interface Certificate {
  key: string;
  cert: string;
}

/** Makes keys and certificates, good for a day, in a folder; names hold no spaces. Needs `openssl`, 3.0 or later. */
export function createCertificates(folder: string) {
  const pathOf = (name: string, kind: 'key' | 'pem') => join(folder, `${name}.${kind}`);

  async function make(name: string, more: readonly string[]): Promise<Certificate> {
    const [key, cert] = [pathOf(name, 'key'), pathOf(name, 'pem')];
    const request = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=${name}`;
    await run('openssl', [...request.split(' '), '-keyout', key, '-out', cert, ...more]);
    return { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') };
  }

  const forHost = (host: string) => [
    '-addext',
    `subjectAltName=DNS:${host}`,
    '-addext',
    'basicConstraints=critical,CA:FALSE',
  ];
  return {
    /** Makes a CA. @returns the path of its certificate. */
    createAuthority: async (name: string): Promise<string> => {
      await make(name, ['-addext', 'basicConstraints=critical,CA:TRUE']);
      return pathOf(name, 'pem');
    },
    /** @param authority the name of a CA of this folder; without one the certificate is signed by itself. */
    issue: (name: string, host: string, authority?: string): Promise<Certificate> =>
      make(name, [
        ...forHost(host),
        ...(authority === undefined ? [] : ['-CA', pathOf(authority, 'pem'), '-CAkey', pathOf(authority, 'key')]),
      ]),
  };
}

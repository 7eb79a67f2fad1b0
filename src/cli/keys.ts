import type { Output } from './output.js';
import { table } from './output.js';
import { readAll, type Server, succeeded } from './server.js';

interface ServerKey {
  id: string;
  name: string;
  permissions: string[];
  tenant: { externalId: string } | null;
  createdAt: string;
  lastUsedAt: string | null;
  expiresAt: string | null;
}

const FIELDS = 'id name permissions tenant { externalId } createdAt lastUsedAt expiresAt';

export interface NewKey {
  name: string;
  permission: string[];
  tenant?: string;
  expires?: string;
}

/** Prints the new key, and nothing else, to standard output: it is shown this once. */
export async function createKey(server: Server, output: Output, given: NewKey): Promise<void> {
  const input = {
    name: given.name,
    permissions: given.permission,
    tenantId: given.tenant ?? null,
    expiresAt: given.expires ?? null,
  };
  const outcome = await server.mutate<{ serverKey: ServerKey & { key: string } }>(
    'createServerKey',
    input,
    `serverKey { ${FIELDS} key }`,
  );
  const { serverKey } = succeeded(outcome);
  output.note(`The key of "${serverKey.name}" (${serverKey.id}) is shown this once:`);
  output.result(serverKey, () => serverKey.key);
}

export async function listKeys(server: Server, output: Output): Promise<void> {
  const keys = await readAll<ServerKey>(server, 'serverKeys', FIELDS);
  output.result(keys, () =>
    table(
      ['ID', 'NAME', 'TENANT', 'LAST USED', 'EXPIRES', 'PERMISSIONS'],
      keys.map(({ id, name, tenant, lastUsedAt, expiresAt, permissions }) => [
        id,
        name,
        tenant?.externalId ?? 'all',
        lastUsedAt ?? 'never',
        expiresAt ?? 'never',
        permissions.join(','),
      ]),
    ),
  );
}

export async function revokeKey(server: Server, output: Output, id: string): Promise<void> {
  const { deletedId } = succeeded(await server.mutate<{ deletedId: string }>('revokeServerKey', { id }, 'deletedId'));
  output.result({ deletedId }, () => `revoked ${deletedId}`);
}

import { CliError, EXIT, type Output, table } from './output.js';
import { readAll, type Server, succeeded } from './server.js';

interface Tenant {
  externalId: string;
  name: string | null;
  createdAt: string;
  allowedOrigins: string[];
}

const FIELDS = 'externalId name createdAt allowedOrigins';

export async function listTenants(server: Server, output: Output): Promise<void> {
  const tenants = await readAll<Tenant>(server, 'tenants', FIELDS);
  output.result(tenants, () =>
    table(
      ['TENANT', 'NAME', 'CREATED', 'ALLOWED ORIGINS'],
      tenants.map(({ externalId, name, createdAt, allowedOrigins }) => [
        externalId,
        name ?? '',
        createdAt,
        allowedOrigins.join(' '),
      ]),
    ),
  );
}

export async function createTenant(
  server: Server,
  output: Output,
  externalId: string,
  { name, origin }: { name?: string; origin: string[] },
): Promise<void> {
  const input = { externalId, name: name ?? null, allowedOrigins: origin };
  const { tenant } = succeeded(await server.mutate<{ tenant: Tenant }>('createTenant', input, `tenant { ${FIELDS} }`));
  output.result(tenant, () => `created ${tenant.externalId}`);
}

interface TenantDeletion {
  id: string;
  requestedAt: string;
  keysDestroyedAt: string | null;
  revocation: { total: number; confirmed: number; pending: number };
}

/** Asks for the tenant's identifier once more, where there is somebody to ask. */
export async function deleteTenant(
  server: Server,
  output: Output,
  tenantId: string,
  { confirm }: { confirm?: string },
): Promise<void> {
  const repeated = confirm ?? (await askToRepeat(tenantId));
  if (repeated !== tenantId) {
    throw new CliError(
      `Nothing was deleted: repeat the tenant, --confirm ${tenantId}, to end its connections and destroy its keys.`,
      EXIT.usage,
    );
  }
  const outcome = await server.mutate<{ tenantDeletion: TenantDeletion }>(
    'deleteTenant',
    { tenantId, confirm: repeated },
    'tenantDeletion { id requestedAt keysDestroyedAt revocation { total confirmed pending } }',
  );
  const { tenantDeletion } = succeeded(outcome);
  const { id, keysDestroyedAt, revocation } = tenantDeletion;
  output.result(
    tenantDeletion,
    () =>
      `deleted ${tenantId}: keys destroyed ${keysDestroyedAt ?? 'soon'}, ` +
      `${revocation.confirmed} of ${revocation.total} revocations confirmed by Zoom (receipt ${id})`,
  );
}

async function askToRepeat(tenantId: string): Promise<string | undefined> {
  if (!process.stdin.isTTY) return undefined;
  const message = `This ends every connection of ${tenantId} and destroys its keys. Type its identifier to go on:`;
  const { isCancel, text } = await import('@clack/prompts');
  const answer = await text({ message, output: process.stderr });
  return isCancel(answer) ? undefined : answer;
}

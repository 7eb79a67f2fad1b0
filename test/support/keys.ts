import sql from 'sql-template-tag';
import type { TestServer } from './server.js';

type Server = Pick<TestServer, 'data' | 'db'>;

/** The key of a tenant as the API shows it. */
export async function tenantKey(
  server: Server,
  tenantId: string,
): Promise<{ version: number; createdAt: string; pendingReseal: number } | undefined> {
  const { tenant } = await server.data(
    'query ($id: String!) { tenant(externalId: $id) { key { version createdAt pendingReseal } } }',
    { id: tenantId },
  );
  return tenant?.key;
}

export async function rotateTenantKey(server: Server, tenantId: string): Promise<any> {
  const { rotateTenantKey: answer } = await server.data(
    `mutation ($input: RotateTenantKeyInput!) {
      rotateTenantKey(input: $input) {
        __typename
        ... on RotateTenantKeySuccess { tenantKey { version createdAt pendingReseal } }
        ... on Error { message }
      }
    }`,
    { input: { tenantId } },
  );
  return answer;
}

export async function deleteTenant(server: Server, tenantId: string, confirm = tenantId): Promise<any> {
  const { deleteTenant: answer } = await server.data(
    `mutation ($input: DeleteTenantInput!) {
      deleteTenant(input: $input) {
        __typename
        ... on DeleteTenantSuccess {
          tenantDeletion {
            id tenantExternalId requestedAt keysDestroyedAt revocation { id total confirmed pending }
          }
        }
        ... on InvalidInputError { path }
        ... on Error { message }
      }
    }`,
    { input: { tenantId, confirm } },
  );
  return answer;
}

/** The tenant's id as the database knows it. */
export async function tenantRowId({ db }: Pick<Server, 'db'>, tenantId: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${tenantId}`);
  return row?.id ?? '';
}

/** Versions of an owner's key that are stored, oldest first. */
export async function keyVersions({ db }: Pick<Server, 'db'>, owner: string): Promise<number[]> {
  const rows = await db.query<{ version: number }>(sql`
    SELECT version FROM tenant_key WHERE owner = ${owner} ORDER BY version`);
  return rows.map(({ version }) => version);
}

/** The time of grace of superseded versions of an owner's key is over. */
export async function endKeyGrace({ db }: Pick<Server, 'db'>, owner: string): Promise<void> {
  await db.query(sql`
    UPDATE tenant_key SET unreferenced_since = unreferenced_since - interval '30 days'
    WHERE owner = ${owner} AND NOT active`);
}

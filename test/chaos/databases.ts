import { randomBytes } from 'node:crypto';
import pg from 'pg';

/** Runs statements as the owner of everything, over a connection of their own. */
export async function asAdmin(clusterUrl: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: clusterUrl, connectionTimeoutMillis: 5_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const statement of statements) ({ rows } = await client.query<Record<string, unknown>>(statement));
    return rows;
  } finally {
    await client.end();
  }
}

/** Makes an empty database. */
export async function createDatabase(clusterUrl: string): Promise<{ name: string; url: string }> {
  const name = `latchkey_chaos_${randomBytes(6).toString('hex')}`;
  await asAdmin(clusterUrl, `CREATE DATABASE ${name}`);
  const url = new URL(clusterUrl);
  url.pathname = `/${name}`;
  return { name, url: url.href };
}

export async function dropDatabase(clusterUrl: string, name: string): Promise<void> {
  await asAdmin(clusterUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
}

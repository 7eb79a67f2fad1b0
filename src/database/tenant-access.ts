import { AsyncLocalStorage } from 'node:async_hooks';
import type { PrismaClient } from '../generated/prisma/client.js';
import type { Sql, TenantDatabase } from './database.js';
import { createTenantReads, type TenantReadsOptions } from './tenant-reads.js';

export interface TenantAccess {
  of(tenantId: string): TenantDatabase;
  close(): Promise<void>;
}

interface Queryable {
  query(...statement: never[]): Promise<unknown>;
}

/**
 * Gives each tenant its view of the database. One Prisma client serves them all: whose statements it sends follows from
 * the `read` that they belong to, and outside of one it sends none.
 *
 * @param deps `transaction`: one in which nothing but the tenant's rows can be seen and changed; `openPrisma`: a Prisma
 * client that gives its statements to `query`.
 */
export function createTenantAccess<Client extends Queryable>(
  deps: TenantReadsOptions<Client> & {
    sqlOf(client: Client): Sql;
    transaction<T>(tenantId: string, run: (tx: Sql) => Promise<T>): Promise<T>;
    openPrisma(query: (...statement: unknown[]) => Promise<unknown>): PrismaClient;
  },
): TenantAccess {
  const reads = createTenantReads(deps);
  const reading = new AsyncLocalStorage<string>();
  const prisma = deps.openPrisma(async (...statement) => {
    const tenantId = reading.getStore();
    if (tenantId === undefined) throw new Error('No tenant is reading.');
    return reads.run(tenantId, (client) => client.query(...(statement as never[])));
  });

  return {
    of: (tenantId) => ({
      // Awaited within: Prisma sends a statement when its result is first waited for.
      read: (run) =>
        reading.run(
          tenantId,
          async () =>
            await run({
              prisma,
              query: (statement) => reads.run(tenantId, (client) => deps.sqlOf(client).query(statement)),
            }),
        ),
      query: (statement) => deps.transaction(tenantId, (tx) => tx.query(statement)),
      transaction: (run) => deps.transaction(tenantId, run),
    }),
    close: () => prisma.$disconnect(),
  };
}

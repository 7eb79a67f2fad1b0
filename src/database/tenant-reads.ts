import type { DatabaseBusyError } from './connection-shares.js';
import { nextTurn } from './dead-connection.js';

/** A connection in a transaction that is for one tenant. */
export interface TenantConnection<Client> {
  client: Client;
  /** Ends the transaction and gives the connection back; `failure` is what a statement of it threw. */
  end(failure: unknown): Promise<void>;
}

export interface TenantReadsOptions<Client> {
  /** Opens a transaction in which only the tenant's rows can be seen. */
  begin(tenantId: string): Promise<TenantConnection<Client>>;
  /** Whether somebody waits for a connection that the tenant's reads have. */
  isWaitedFor(tenantId: string): boolean;
  /** What a statement is told that has waited too long, or finds too many waiting. */
  refuse(): DatabaseBusyError;
  /** Transactions that one tenant's reads may have open at once. */
  maxSessions: number;
  /** Longest that a statement waits for others. */
  patienceMs: number;
}

interface Statement<Client> {
  run(client: Client): Promise<unknown>;
  resolve(result: unknown): void;
  reject(error: unknown): void;
  /** By the monotonic clock, milliseconds. */
  sinceMs: number;
}

interface Tenant<Client> {
  /** Oldest first. */
  waiting: Statement<Client>[];
  sessions: number;
}

/** Statements that wait for one connection before another is taken. */
const MAX_WAITING = 4;
/** Statements of one tenant that wait, before more are refused at once. */
const MAX_QUEUED = 2_000;

/**
 * Runs reads for tenants in transactions, which is where a role and a tenant can be set, and makes few of them: what a
 * tenant asks while one is open joins it, so that the nested reads of an operation cost two messages more in all, not
 * each. A transaction is kept open for one turn of the event loop after its last statement, never longer, and given up
 * after some statements where others wait for its connection.
 *
 * Statements of a tenant begin in the order in which they came. One that fails ends its transaction; those behind it go
 * on in another. One that has waited too long fails with DatabaseBusyError.
 */
export function createTenantReads<Client>(options: TenantReadsOptions<Client>) {
  const { begin, isWaitedFor, refuse, maxSessions, patienceMs } = options;
  const tenants = new Map<string, Tenant<Client>>();

  /** @returns what a statement threw, which has ended the transaction. */
  async function drain(tenantId: string, { waiting }: Tenant<Client>, client: Client): Promise<unknown> {
    let isLastTurn = false;
    for (let served = 0; served < MAX_WAITING || !isWaitedFor(tenantId); served += 1) {
      const statement = waiting.shift();
      if (statement === undefined) {
        if (isLastTurn) return undefined;
        isLastTurn = true;
        // What came of the last answer asks its own questions before then.
        await nextTurn();
        continue;
      }
      isLastTurn = false;
      if (isOverdue(statement)) {
        statement.reject(refuse());
        continue;
      }
      try {
        statement.resolve(await statement.run(client));
      } catch (error) {
        statement.reject(error);
        return error;
      }
    }
    return undefined;
  }

  const isOverdue = ({ sinceMs }: Statement<Client>): boolean => performance.now() - sinceMs >= patienceMs;

  async function serve(tenantId: string, tenant: Tenant<Client>): Promise<void> {
    let connection: TenantConnection<Client>;
    try {
      connection = await begin(tenantId);
    } catch (error) {
      tenant.sessions -= 1;
      // Other sessions go on with what waits; without one it would wait for nothing.
      if (tenant.sessions > 0) return;
      tenants.delete(tenantId);
      for (const statement of tenant.waiting) statement.reject(error);
      return;
    }
    const failure = await drain(tenantId, tenant, connection.client);
    tenant.sessions -= 1;
    open(tenantId, tenant);
    await connection.end(failure);
  }

  /** Begins another session where there is enough for one. */
  function open(tenantId: string, tenant: Tenant<Client>): void {
    const { waiting, sessions } = tenant;
    if (waiting.length === 0 && sessions === 0) return void tenants.delete(tenantId);
    if (waiting.length <= MAX_WAITING * sessions || sessions >= maxSessions) return;
    tenant.sessions += 1;
    // Its failures are those of the statements, or of a connection that is not used again.
    serve(tenantId, tenant).catch(() => undefined);
  }

  function enqueue(tenantId: string, statement: Statement<Client>): void {
    let tenant = tenants.get(tenantId);
    if (tenant === undefined) tenants.set(tenantId, (tenant = { waiting: [], sessions: 0 }));
    if (tenant.waiting.length >= MAX_QUEUED) return statement.reject(refuse());
    tenant.waiting.push(statement);
    open(tenantId, tenant);
  }

  return {
    run: <T>(tenantId: string, run: (client: Client) => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        const sinceMs = performance.now();
        enqueue(tenantId, { run, resolve: resolve as (result: unknown) => void, reject, sinceMs });
      }),
  };
}

/** A connection in a transaction that is for one tenant. */
export interface TenantConnection<Client> {
  client: Client;
  /** Ends the transaction and gives the connection back; `failure` is what a statement of it threw. */
  end(failure: unknown): Promise<void>;
}

interface Statement<Client> {
  run(client: Client): Promise<unknown>;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

interface Session<Client> {
  waiting: Statement<Client>[];
}

/** Statements that wait for one connection before another is taken. */
const MAX_WAITING = 4;

const nextTurn = () => new Promise<void>((resolve) => void setImmediate(resolve));

/**
 * Runs reads for tenants in transactions, which is where a role and a tenant can be set, and makes few of them: what a
 * tenant asks while one is open joins it, so that the nested reads of an operation cost two messages more in all, not
 * each. A transaction is kept open for one turn of the event loop after its last statement, never longer.
 *
 * A statement that fails ends its transaction; those that wait behind it go on in another.
 *
 * @param begin opens a transaction in which only the tenant's rows can be seen.
 */
export function createTenantReads<Client>(begin: (tenantId: string) => Promise<TenantConnection<Client>>) {
  const sessions = new Map<string, Set<Session<Client>>>();

  /** @returns what a statement threw, which has ended the transaction. */
  async function drain({ waiting }: Session<Client>, client: Client): Promise<unknown> {
    for (let isLastTurn = false; ;) {
      const statement = waiting.shift();
      if (statement === undefined) {
        if (isLastTurn) return undefined;
        isLastTurn = true;
        // What came of the last answer asks its own questions before then.
        await nextTurn();
        continue;
      }
      isLastTurn = false;
      try {
        statement.resolve(await statement.run(client));
      } catch (error) {
        statement.reject(error);
        return error;
      }
    }
  }

  function close(tenantId: string, session: Session<Client>): void {
    const open = sessions.get(tenantId);
    open?.delete(session);
    if (open?.size === 0) sessions.delete(tenantId);
  }

  async function serve(tenantId: string, session: Session<Client>): Promise<void> {
    let connection: TenantConnection<Client>;
    try {
      connection = await begin(tenantId);
    } catch (error) {
      close(tenantId, session);
      for (const statement of session.waiting) statement.reject(error);
      return;
    }
    const failure = await drain(session, connection.client);
    close(tenantId, session);
    for (const statement of session.waiting) enqueue(tenantId, statement);
    await connection.end(failure);
  }

  function enqueue(tenantId: string, statement: Statement<Client>): void {
    let open = sessions.get(tenantId);
    if (open === undefined) sessions.set(tenantId, (open = new Set()));
    for (const session of open) {
      if (session.waiting.length < MAX_WAITING) return void session.waiting.push(statement);
    }
    const session = { waiting: [statement] };
    open.add(session);
    // Its failures are those of the statements, or of a connection that is not used again.
    serve(tenantId, session).catch(() => undefined);
  }

  return {
    run: <T>(tenantId: string, run: (client: Client) => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) =>
        enqueue(tenantId, { run, resolve: resolve as (result: unknown) => void, reject }),
      ),
  };
}

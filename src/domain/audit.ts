import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { isOutage } from '../database/outage.js';
import { tell, tellOf } from '../diagnostics.js';
import type { AuditEntry, AuditPrincipal, AuditTrail } from './audit-trail.js';
import type { Principal } from './principal.js';

/** The audit trail cannot be written, so what it would have told of was not done. */
export class AuditUnavailableError extends Error {
  constructor(options: ErrorOptions) {
    super('The audit trail cannot be written.', options);
    this.name = 'AuditUnavailableError';
  }
}

/** What a transaction has done that is to be recorded with it. */
export interface AuditNote extends Partial<Omit<AuditEntry, 'principal' | 'action'>> {
  /** Absent: the operation that is under way does this; the note says what it was about. */
  action?: string;
}

/** An operation that leaves an event whatever becomes of it. */
export interface AuditedOperation {
  action: string;
  /** What is known of it before it begins. */
  about: Pick<AuditNote, 'tenantId' | 'subject' | 'grantId' | 'outcome' | 'reason'>;
  /** Its event is committed. */
  recorded: boolean;
}

/** On whose behalf transactions are made. */
export interface AuditScope {
  principal: AuditPrincipal;
  operation?: AuditedOperation;
}

/** A part of the software, as the one who acts. */
export const bySystem = (part: string): AuditPrincipal => ({
  kind: 'SYSTEM',
  id: part,
  externalUserId: null,
  clientAddress: null,
});

/**
 * Whoever runs a command on the database itself. They are not named: the name of the account on the operating system is
 * `root` in every container, says what the one who runs it likes, and would stay in a chain that is never erased.
 */
export const BY_OPERATOR: AuditPrincipal = {
  kind: 'OPERATOR',
  id: 'command-line',
  externalUserId: null,
  clientAddress: null,
};

const notesOf = new WeakMap<Sql, AuditNote[]>();
const scopeOf = new WeakMap<Sql, AuditScope>();
const audited = new WeakSet<object>();

/**
 * Leaves an event in the caller's transaction. It is written at its very end, so that the chain is locked last, and by
 * whoever the transaction is made for. In a database without a trail nothing is recorded.
 */
export function noteAudit(tx: Sql, note: AuditNote): void {
  notesOf.get(tx)?.push(note);
}

/** The events of a transaction: what was noted, before it the operation's own where it has none yet. */
function entriesOf(notes: readonly AuditNote[], { principal, operation }: AuditScope): AuditEntry[] {
  const entries = notes.flatMap(({ action, ...note }): AuditEntry[] =>
    action === undefined ? [] : [{ tenantId: null, ...note, action, principal }],
  );
  if (operation === undefined || operation.recorded) return entries;
  const { action, about } = operation;
  if (entries.some((entry) => entry.action === action)) return entries;
  const described = notes.find((note) => note.action === undefined);
  return [{ tenantId: null, ...about, ...described, action, principal }, ...entries];
}

/** SQLSTATE of a transaction that is tried once more. */
const DEADLOCK_DETECTED = '40P01';

/** A database that is away, or that ended the transaction for another, says so itself. */
async function append(trail: AuditTrail, tx: Sql, entries: readonly AuditEntry[]): Promise<void> {
  try {
    await trail.append(tx, entries);
  } catch (error) {
    if ((error as { code?: unknown }).code === DEADLOCK_DETECTED) throw error;
    tell({ kind: 'audit-failure', what: 'change' });
    throw isOutage(error) ? error : new AuditUnavailableError({ cause: error });
  }
}

const BY_SOFTWARE: AuditScope = { principal: bySystem('latchkey') };

/** A database whose transactions record what they did: their events commit with them or not at all. */
export function withAudit(database: Database, trail: AuditTrail): Database {
  const recorded =
    (transaction: Database['transaction'], before: (tx: Sql) => Promise<unknown>): Database['transaction'] =>
    async (run) => {
      let operation: AuditedOperation | undefined;
      const answer = await transaction(async (tx) => {
        const notes: AuditNote[] = [];
        notesOf.set(tx, notes);
        const value = await run(tx);
        const scope = scopeOf.get(tx) ?? BY_SOFTWARE;
        operation = scope.operation;
        const entries = entriesOf(notes, scope);
        if (entries.length > 0) {
          await before(tx);
          await append(trail, tx, entries);
          tellOf(tx, { kind: 'audit', what: 'change', count: entries.length });
        }
        return value;
      });
      if (operation !== undefined) operation.recorded = true;
      return answer;
    };
  const result: Database = {
    ...database,
    transaction: recorded(database.transaction, async () => undefined),
    tenant: (tenantId) => {
      const view = database.tenant(tenantId);
      // A tenant's role writes no audit events: the rest of the transaction is the owner's.
      return { ...view, transaction: recorded(view.transaction, (tx) => tx.query(sql`SET LOCAL ROLE NONE`)) };
    },
    shareOf: (holder) => withAudit(database.shareOf(holder), trail),
  };
  audited.add(result);
  return result;
}

/** The caller of the API, as the trail names them. */
export function auditPrincipalOf(
  { kind, id, externalUserId }: Principal,
  clientAddress: string | null,
): AuditPrincipal {
  if (id === null) return { kind: 'ADMIN_KEY', id: 'admin', externalUserId, clientAddress };
  return { kind, id, externalUserId, clientAddress };
}

/**
 * The same database on behalf of somebody. Transactions that are made with it are theirs.
 *
 * @throws where an operation is to be recorded and the database keeps no trail.
 */
export function actingAs(database: Database, scope: AuditScope): Database {
  if (!audited.has(database)) {
    if (scope.operation !== undefined) throw new Error('This database keeps no audit trail.');
    return database;
  }
  const acting =
    (transaction: Database['transaction']): Database['transaction'] =>
    (run) =>
      transaction((tx) => {
        scopeOf.set(tx, scope);
        return run(tx);
      });
  const result: Database = {
    ...database,
    transaction: acting(database.transaction),
    tenant: (tenantId) => {
      const view = database.tenant(tenantId);
      return { ...view, transaction: acting(view.transaction) };
    },
    shareOf: (holder) => actingAs(database.shareOf(holder), scope),
  };
  audited.add(result);
  return result;
}

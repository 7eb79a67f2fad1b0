import sql from 'sql-template-tag';
import type { Database } from '../../../src/database/database.js';
import { credentialPlace } from '../../../src/domain/grant.js';
import { isLive, type HealthState } from '../../../src/domain/health.js';
import type { HealthReason, HealthStatus, RefreshState } from '../../../src/generated/prisma/enums.js';
import type { Vault } from '../../../src/vault/vault.js';
import { canFollow } from '../health-facts.js';
import type { Presentation, Provider } from './provider.js';
import type { Actor, Steps } from './steps.js';
import type { ModelTime } from './world.js';

/** What was stored after one step. */
export interface Snapshot {
  status: HealthStatus | null;
  reason: HealthReason | null;
  events: number;
  /** Counts the credentials that the grant has had: it grows with each that is destroyed. */
  life: number;
  credential: {
    version: number;
    fence: number;
    state: RefreshState;
    leaseUntil: Date | null;
    accessToken: string;
    refreshToken: string;
  } | null;
}

interface Row {
  status: HealthStatus | null;
  reason: HealthReason | null;
  events: number;
  grantId: string | null;
  version: number | null;
  fence: number;
  state: RefreshState;
  leaseUntil: Date | null;
  access: Uint8Array;
  refresh: Uint8Array;
}

/** One call of `readCredential`: from which snapshot to which, and what it was given. */
export interface Read {
  actor: Actor;
  from: number;
  to: number | null;
  token: string | null;
  error: Error | null;
}

/** Promises of the product that a run has broken, and how it came to that. */
export class Violation extends Error {
  readonly invariants: ReadonlySet<string>;

  constructor(broken: readonly { invariant: string; detail: string }[], trace: readonly string[]) {
    super([...broken.map(({ invariant, detail }) => `${invariant}: ${detail}`), '', ...trace].join('\n'));
    this.name = 'Violation';
    this.invariants = new Set(broken.map(({ invariant }) => invariant));
  }
}

export interface History {
  readonly snapshots: Snapshot[];
  readonly reads: Read[];
  /** Refresh tokens that a spool has held. */
  readonly spooled: Set<string>;
  /** Looks at the database after a step that may have written, and judges the change. */
  observe(actor: Actor | null): Promise<void>;
  /** Judges a refresh token that is about to be sent. */
  present(presentation: Presentation, earlier: readonly Presentation[]): void;
  beginRead(actor: Actor): Read;
  /** Judges what the read was given. */
  endRead(read: Read, outcome: { token: string } | { error: Error }): void;
  report(invariant: string, detail: string): void;
  /** @throws {Violation} something was reported. */
  conclude(): void;
  latest(): Snapshot;
  /** The only grant there is, once there is one. */
  grantId(): string;
}

export interface HistoryOptions {
  db: Database;
  vault: Vault;
  tenantId: string;
  time: ModelTime;
  steps: Steps;
  /** After this long a lease says nothing any more: it has run out and so has the wait that follows. */
  leaseIsOverSeconds: number;
  /** An answer that was not read is waited for this long. */
  doubtSeconds: number;
  provider(): Provider;
}

const EMPTY: Snapshot = { status: null, reason: null, events: 0, life: 0, credential: null };

export function createHistory(options: HistoryOptions): History {
  const { db, vault, tenantId, time, steps, leaseIsOverSeconds } = options;
  const snapshots: Snapshot[] = [EMPTY];
  const reads: Read[] = [];
  const broken: { invariant: string; detail: string }[] = [];
  let grant = '';
  let lastVersion = 0;
  const latest = () => snapshots[snapshots.length - 1] ?? EMPTY;

  const report = (invariant: string, detail: string) => {
    steps.trace.push(`!! ${invariant}: ${detail}`);
    broken.push({ invariant, detail });
  };

  async function look(before: Snapshot): Promise<Snapshot> {
    const [row] = await db.query<Row>(sql`
      SELECT g.health_status AS status, g.health_reason AS reason, t.event_sequence AS events, g.id AS "grantId",
        c.version, c.fence, c.refresh_state AS state, c.lease_until AS "leaseUntil",
        c.sealed_access_token AS access,
        c.sealed_refresh_token AS refresh
      FROM tenant t LEFT JOIN provider_grant g ON g.tenant_id = t.id LEFT JOIN credential c ON c.grant_id = g.id
      WHERE t.id = ${tenantId}::uuid`);
    if (row === undefined) throw new Error('The tenant of the model is gone.');
    const { status, reason, events, grantId, version, fence, state, leaseUntil } = row;
    grant = grantId ?? grant;
    if (version === null || grantId === null) {
      return { status, reason, events, life: before.life + (before.credential === null ? 0 : 1), credential: null };
    }
    const open = async (column: 'sealed_access_token' | 'sealed_refresh_token', sealed: Uint8Array) => {
      const place = credentialPlace({ id: grantId, tenantId }, column, version);
      return (await vault.open(db, place, sealed as Parameters<Vault['open']>[2])).reveal();
    };
    const accessToken = await open('sealed_access_token', row.access);
    const refreshToken = await open('sealed_refresh_token', row.refresh);
    const credential = { version, fence, state, leaseUntil, accessToken, refreshToken };
    return { status, reason, events, life: before.life, credential };
  }

  function judgeFence(actor: Actor, before: Snapshot, after: Snapshot): void {
    if (after.credential !== null && before.credential === null) {
      if (after.credential.version <= lastVersion) report('I3', `version ${after.credential.version} is given again`);
    }
    lastVersion = after.credential?.version ?? lastVersion;
    if (before.credential === null || after.credential === null) return;
    const [was, is] = [before.credential, after.credential];
    if (is.fence < was.fence) report('I3', `the fence fell from ${was.fence} to ${is.fence}`);
    if (is.version < was.version) report('I3', `the version fell from ${was.version} to ${is.version}`);
    const changed = is.accessToken !== was.accessToken || is.refreshToken !== was.refreshToken;
    if (changed && is.version === was.version) report('I3', 'tokens were exchanged under one version');
    if (is.fence > was.fence && is.state !== 'IDLE' && !changed) {
      actor.leases.push({ fence: is.fence, life: after.life, at: time.nowMs(), refreshToken: is.refreshToken });
    }
    // A consent raises the fence itself; every other new token is stored by the holder of the newest lease.
    if (!changed) return;
    const source = options.provider().presentations.find(({ handedOut }) => handedOut === is.refreshToken);
    // Consents raise the fence themselves, and so do tokens that are found when nobody holds a lease; all others need
    // the newest one.
    const isFree = was.leaseUntil === null || was.leaseUntil.getTime() <= time.nowMs();
    const mayRaise = source === undefined || (isFree && (before.reason === 'ROTATION_LOST' || was.state !== 'IDLE'));
    const isHolder = source?.actor.leases.some(({ fence, life }) => fence === was.fence && life === before.life);
    if (is.fence > was.fence ? !mayRaise : !isHolder) {
      report('I3', `${is.refreshToken} was stored under a lease that was no longer the newest`);
    }
  }

  function judgeHealth(before: Snapshot, after: Snapshot): void {
    const changed = before.status !== after.status || before.reason !== after.reason;
    const events = after.events - before.events;
    const isConsent = after.reason === 'CONNECTED' && events === 1;
    if (changed ? events !== 1 : events !== 0 && !isConsent) {
      report('I4', `from ${before.reason} to ${after.reason} with ${events} events`);
    }
    if (before.status !== null && before.reason !== null && after.status !== null && after.reason !== null && changed) {
      const [was, is] = [before, after] as [HealthState, HealthState];
      if (!canFollow(was, is)) report('I4', `no fact leads from ${was.reason} to ${is.reason}`);
    }
    const refused = after.reason === 'GRANT_REJECTED' || after.reason === 'ROTATION_LOST';
    const stored = after.credential?.refreshToken;
    if (changed && refused && stored !== undefined && options.provider().worksToRefresh(stored)) {
      report('I6', `ended as ${after.reason} while ${stored}, which is stored, still works`);
    }
  }

  const isOver = (leaseAt: number | null) => leaseAt !== null && time.nowMs() - leaseAt >= leaseIsOverSeconds * 1_000;

  return {
    snapshots,
    reads,
    spooled: new Set(),
    latest,
    grantId: () => grant,
    report,
    conclude: () => {
      if (broken.length > 0) throw new Violation(broken, steps.trace);
    },
    observe: async (actor) => {
      const before = latest();
      const after = await look(before);
      snapshots.push(after);
      if (actor !== null) judgeFence(actor, before, after);
      judgeHealth(before, after);
    },
    present: (presentation, earlier) => {
      if (presentation.leaseAt === null)
        report('I1', `${presentation.actor.name} presents ${presentation.token} unleased`);
      for (const first of earlier) {
        const doubtIsOld = first.lostAt !== null && time.nowMs() - first.lostAt >= options.doubtSeconds * 1_000;
        const inDoubt = first.isVoid || doubtIsOld || isOver(first.leaseAt) || isOver(presentation.leaseAt);
        if (!inDoubt) report('I1', `${presentation.actor.name} presents ${presentation.token} again`);
      }
    },
    beginRead: (actor) => {
      const read: Read = { actor, from: snapshots.length - 1, to: null, token: null, error: null };
      reads.push(read);
      return read;
    },
    endRead: (read, outcome) => {
      read.to = snapshots.length - 1;
      if ('error' in outcome) {
        read.error = outcome.error;
        return;
      }
      read.token = outcome.token;
      const seen = snapshots.slice(read.from, read.to + 1);
      const wasStored = seen.some(
        ({ credential, status, reason }) =>
          credential?.accessToken === outcome.token &&
          status !== null &&
          (isLive(status) || reason === 'ROTATION_LOST'),
      );
      if (!wasStored) report('I2', `${read.actor.name} was given ${outcome.token}, which was not stored meanwhile`);
    },
  };
}

/** The event log of the tenant against what was seen: gapless, each taking up where the last one left off. */
export async function judgeEvents(history: History, db: Database, tenantId: string): Promise<void> {
  const events = await db.query<{ sequence: number; previous: string | null; current: string; reason: string }>(sql`
    SELECT sequence, previous, current, reason FROM health_event WHERE tenant_id = ${tenantId}::uuid ORDER BY sequence`);
  let status: string | null = null;
  events.forEach(({ sequence, previous, current }, index) => {
    if (sequence !== index + 1) history.report('I4', `event ${index + 1} has number ${sequence}`);
    if (previous !== status) history.report('I4', `event ${sequence} begins at ${previous}, not at ${status}`);
    status = current;
  });
  const { status: now, reason, events: counted } = history.latest();
  const last = events.at(-1);
  if (events.length !== counted) history.report('I4', `${events.length} events are stored, ${counted} were counted`);
  if (last?.current !== now || last?.reason !== reason) {
    history.report('I4', `the grant is ${reason}, its last event says ${last?.reason}`);
  }
}

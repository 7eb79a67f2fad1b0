import type { Database, Sql, SqlStatement } from '../../../src/database/database.js';
import { readCredential } from '../../../src/domain/credential.js';
import { createCandidateReader } from '../../../src/domain/credential-reader.js';
import type { Deps, DomainSettings } from '../../../src/domain/deps.js';
import { storeGrant } from '../../../src/domain/grant.js';
import { checkGrant, refreshGrant } from '../../../src/domain/grant-check.js';
import { createSpoolCipher, openTokens, spooledRow } from '../../../src/domain/renewal.js';
import { createRefresher } from '../../../src/domain/refresh.js';
import { revokeGrant } from '../../../src/domain/revocation-request.js';
import type { Vault } from '../../../src/vault/vault.js';
import type { TokenSet } from '../../../src/zoom/zoom.js';
import type { History } from './history.js';
import type { Provider } from './provider.js';
import type { Actor } from './steps.js';
import type { Disk } from './disk.js';
import { quiet } from './quiet.js';
import type { ModelWorld } from './world.js';

export const SETTINGS: DomainSettings = {
  publicUrl: 'https://latchkey.example',
  sessionSeconds: 600,
  connectCodeSeconds: 120,
  maxOpenSessions: 10,
  webhookToleranceSeconds: 300,
  maxTripsPerFrontendSession: 10,
  refreshMarginSeconds: 300,
  leaseSeconds: 30,
  doubtSeconds: 10,
  providerDeadlineSeconds: 15,
  refreshesPerTenant: 10,
  refreshesPerSecond: 1_000,
  probeIntervalSeconds: null,
  meetingListIntervalSeconds: null,
  keyRetirementSeconds: 86_400,
  eventRetentionDays: 30,
  failuresBeforeDegraded: 3,
};

/** From taking a lease to the moment at which another process may take the credential. */
export const LEASE_IS_OVER_SECONDS = SETTINGS.leaseSeconds + SETTINGS.doubtSeconds;

/** A poll may wake up late. That it does keeps runs short: a waiting caller gives up after a few. */
const OVERSLEPT_MS = 10_000;

export const USER_ID = 'user_model';

/** How a statement may fail: before it reached the database, or after it was carried out. */
export type Break = 'none' | 'before' | 'after';

/** Puts something between a process and its statements, to see whether a machine that is broken in this way is found out. */
export type Sabotage = (statements: Sql) => Sql;

/** One run's surroundings, as each of its processes needs them. */
export interface Surroundings {
  world: ModelWorld;
  provider: Provider;
  history: History;
  sabotage: Sabotage;
  /** What becomes of the next statement. */
  nextBreak(): Break;
}

/** A server of the product, as far as credentials are concerned. */
export interface Process {
  readonly actor: Actor;
  /** Reads the credential; what it is given is judged. */
  read(): Promise<void>;
  refreshNow(): Promise<void>;
  checkNow(): Promise<void>;
  replay(): Promise<void>;
  refreshDue(): Promise<void>;
  disconnect(): Promise<void>;
  connect(tokens: TokenSet): Promise<void>;
}

/** Every statement and every transaction is a step of the actor; nothing happens within either but themselves. */
function createDatabase(actor: Actor, surroundings: Surroundings): Database {
  const { world, history, sabotage } = surroundings;
  const outer = sabotage(world.db);

  async function run<T>(carryOut: () => Promise<T>, isWatched: (result: T) => boolean): Promise<T> {
    const fault = surroundings.nextBreak();
    if (fault === 'before') throw new Error('The connection was lost.');
    const result = await carryOut();
    if (isWatched(result)) await history.observe(actor);
    if (fault === 'after') throw new Error('The connection was lost.');
    return result;
  }

  return {
    kind: 'embedded',
    prisma: world.db.prisma,
    tenant: world.db.tenant,
    query: <Row>(statement: SqlStatement) => {
      const text = statement.text.trim();
      const mayChange = WATCHED.test(text);
      const isTold = text.includes('RETURNING');
      return actor.step(nameOf(text), () =>
        run(
          () => outer.query<Row>(statement),
          (rows) => mayChange && !(isTold && rows.length === 0),
        ),
      );
    },
    transaction: <T>(body: (tx: Sql) => Promise<T>) =>
      actor.step('transaction', () =>
        run(
          () => world.db.transaction((tx) => body(sabotage(tx))),
          () => true,
        ),
      ),
    shareOf(): Database {
      return this;
    },
    pool: () => null,
    identity: async () => null,
    close: async () => undefined,
  };
}

/** Statements that change what the history looks at. */
const WATCHED = /(?:UPDATE|INTO|DELETE FROM) (?:credential|provider_grant|health_event)\b/;

/** Statements by something that only they have, for the trace. */
const NAMES: [RegExp, string][] = [
  [/^WITH candidate/, 'takes a lease'],
  [/CROSS JOIN LATERAL/, 'reads'],
  [/^UPDATE provider_revocation r/, 'looks for revocations'],
  [/^UPDATE credential SET refresh_state/, 'gives the lease back'],
];

const nameOf = (text: string): string =>
  NAMES.find(([pattern]) => pattern.test(text))?.[1] ?? text.replaceAll(/\s+/g, ' ').slice(0, 40);

/** The one place that knows how the product's parts are put together. */
function createDeps(actor: Actor, { vault, disk }: Machine, surroundings: Surroundings) {
  const { world, provider, history } = surroundings;
  let sleptMs = 0;
  const deps: Deps = {
    db: createDatabase(actor, surroundings),
    vault,
    zoom: provider.portFor(actor),
    feed: quiet.feed,
    spool: disk.spoolFor(actor, createSpoolCipher({ db: world.db, vault }), async ({ entry }) => {
      const { refreshToken } = await openTokens(vault, world.db, spooledRow(entry));
      if (refreshToken !== null) history.spooled.add(refreshToken.reveal());
    }),
    clock: {
      now: () => new Date(world.time.nowMs() + sleptMs),
      sleep: (ms) =>
        actor.step('wakes up', () => {
          sleptMs += ms + OVERSLEPT_MS;
        }),
    },
    log: quiet.log,
    settings: SETTINGS,
  };
  return { ...deps, refresher: createRefresher(deps), candidates: createCandidateReader(deps.db), renewals: new Map() };
}

/** What a process runs on; another may take it over when it has died. */
export interface Machine {
  vault: Vault;
  disk: Disk;
}

/** Starts one: what its predecessor has left on the machine is looked into before anything else. */
export function createProcess(actor: Actor, machine: Machine, surroundings: Surroundings): Process {
  const { world, history } = surroundings;
  const deps = createDeps(actor, machine, surroundings);
  const query = {
    tenantId: world.tenant.externalId,
    userId: USER_ID,
    kind: 'USER_CONNECTION',
    grantId: null,
    minTtlSeconds: 0,
    requiredScopes: [],
  } as const;
  /** What fails here fails for its caller, who would be told; the model has nobody to tell. */
  const settled = (work: Promise<unknown>) =>
    work.then(
      () => undefined,
      () => undefined,
    );

  const started = deps.refresher.replay({ all: true });

  /** A scheduler begins no round of a job before the last one has ended. */
  let due = started;
  let replayed = started;

  return {
    actor,
    read: async () => {
      const read = history.beginRead(actor);
      await started;
      await readCredential(deps, query).then(
        ({ accessToken }) => history.endRead(read, { token: accessToken.reveal() }),
        (error: Error) => history.endRead(read, { error }),
      );
    },
    refreshNow: () => settled(started.then(() => refreshGrant(deps, history.grantId()))),
    checkNow: () => settled(started.then(() => checkGrant(deps, history.grantId()))),
    replay: () => (replayed = replayed.then(() => settled(deps.refresher.replay()))),
    refreshDue: () => (due = due.then(() => settled(deps.refresher.refreshDue(5)))),
    disconnect: async () => {
      await revokeGrant(deps, { id: history.grantId(), kind: 'USER_CONNECTION', includeUsers: false });
    },
    connect: async (tokens) => {
      const app = { id: world.app.id, kind: 'USER_MANAGED' } as const;
      await deps.db.transaction((tx) =>
        storeGrant(deps, tx, {
          kind: 'USER_CONNECTION',
          tenantId: world.tenant.id,
          app,
          subject: USER_ID,
          externalUserId: USER_ID,
          identity: { accountId: 'account', userId: 'zoom-user', email: null, displayName: null },
          tokens,
          ageSeconds: 0,
        }),
      );
    },
  };
}

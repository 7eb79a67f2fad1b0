import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { withAudit } from '../../src/domain/audit.js';
import { createAuditTrail } from '../../src/domain/audit-trail.js';
import type { Deps } from '../../src/domain/deps.js';
import { createSpoolCipher } from '../../src/domain/renewal.js';
import { createRefresher, type Refresher } from '../../src/domain/refresh.js';
import { createFeed } from '../../src/feed/feed.js';
import { createLog } from '../../src/log.js';
import { createSpool } from '../../src/spool/spool.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault } from '../../src/vault/vault.js';
import { createZoom } from '../../src/zoom/zoom.js';
import { startTestServer, type TestServer } from './server.js';

/** A server, and what its own refreshers are made of, so that a test can stand in for a process that dies. */
export interface Workshop {
  server: TestServer;
  /** The parts of one more process on the server's database: its own vault, provider client and spool. */
  createDeps(): Deps;
  createRefresher(deps?: Deps): Refresher;
  /** The folder of every spool. */
  folder: string;
  logs: string[];
}

export async function startWorkshop(settings: Partial<Deps['settings']> = {}): Promise<Workshop> {
  const rootKey = randomBytes(32).toString('base64');
  const server = await startTestServer({ LATCHKEY_ROLE: 'api', LATCHKEY_ROOT_KEY: rootKey });
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-workshop-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const log = createLog('debug', { write: (line) => void server.logs.push(line) });
  const feed = createFeed({ clock: systemClock, pollMs: 1_000 });
  const clients: { close(): Promise<void> }[] = [];
  afterAll(async () => {
    feed.close();
    await Promise.all(clients.map((client) => client.close()));
  });

  function createDeps(): Deps {
    const host = { oauthUrl: server.sandbox.origin, apiUrl: `${server.sandbox.origin}/v2` };
    const zoom = createZoom({
      hosts: { COMMERCIAL: host, GOVERNMENT: host },
      deadlineMs: 3_000,
      clock: systemClock,
    });
    clients.push(zoom);
    const vault = createVault({ rootKeys: createLocalRootKeys(parseRootKeys(rootKey, { production: true })) });
    return {
      db: withAudit(server.db, createAuditTrail({ vault })),
      vault,
      zoom,
      feed,
      spool: createSpool({ disk: { folder, cipher: createSpoolCipher({ vault, db: server.db }) }, log }),
      clock: systemClock,
      log,
      settings: {
        publicUrl: server.url,
        sessionSeconds: 600,
        connectCodeSeconds: 120,
        maxOpenSessions: 100,
        webhookToleranceSeconds: 300,
        maxTripsPerFrontendSession: 100,
        refreshMarginSeconds: 600,
        leaseSeconds: 5,
        doubtSeconds: 1,
        providerDeadlineSeconds: 3,
        refreshesPerTenant: 100,
        refreshesPerSecond: 10_000,
        probeIntervalSeconds: null,
        meetingListIntervalSeconds: null,
        keyRetirementSeconds: 86_400,
        eventRetentionDays: 30,
        failuresBeforeDegraded: 3,
        ...settings,
      },
    };
  }

  return {
    server,
    createDeps,
    createRefresher: (deps = createDeps()) => createRefresher(deps),
    folder,
    logs: server.logs,
  };
}

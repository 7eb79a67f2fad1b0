import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import sql from 'sql-template-tag';
import type { JournalEntry } from '../../src/sandbox/ledger.js';
import { findCanaries } from '../support/canary.js';
import { meStatus, type Reading } from './client.js';
import { backwardSteps, unevenTransitions } from './history.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';

/** Grants that are read once more at the end; of more than these a sample. */
const READ_AT_THE_END = 60;
const LIVE = sql`('HEALTHY', 'DEGRADED')`;

/**
 * Takes away what was injected and lets waiting times be over, then waits until nothing is under way any more.
 *
 * @returns what has not come to rest.
 */
export async function heal(stage: Stage): Promise<string[]> {
  const { control, db, seconds } = stage;
  control.clearFaults();
  control.setKnobs({ tokenDelayMs: 0, restDelayMs: 0, webhookDuplicates: 0 });
  for (const server of stage.servers) if (server.isFrozen) stage.thaw(server);
  await Promise.all(stage.servers.filter(({ process }) => process.isRunning()).map(({ process }) => process.listening));
  if (stage.live().length === 0) await stage.start();
  await db.query(sql`UPDATE provider_app SET incident_retry_at = now() WHERE incident_reason IS NOT NULL`);
  await db.query(sql`UPDATE refresh_pace SET paced_until = now() - interval '1 second'`);
  await db.query(sql`
    UPDATE credential c SET retry_at = NULL, next_refresh_at = now() FROM provider_grant g
    WHERE g.id = c.grant_id AND g.health_status IN ${LIVE}
      AND (c.refresh_state <> 'IDLE' OR c.failures > 0 OR c.failure_reason IS NOT NULL)`);
  const restless = async () =>
    db.query<{ text: string }>(sql`
      SELECT format('%s is %s, %s', c.grant_id, c.refresh_state, coalesce(c.failure_reason::text, 'no reason')) AS text
      FROM credential c JOIN provider_grant g ON g.id = c.grant_id
      WHERE g.health_status IN ${LIVE} AND (c.refresh_state <> 'IDLE' OR c.failure_reason IS NOT NULL)`);
  const patience = seconds.lease + seconds.doubt + seconds.deadline + 15;
  try {
    await waitUntil('nothing is under way', async () => (await restless()).length === 0, patience);
    return [];
  } catch {
    return (await restless()).slice(0, 5).map(({ text }) => `I6 after healing ${text}`);
  }
}

type Sent = Pick<Stage, 'control' | 'interruptions' | 'excused' | 'seconds'>;

/** No refresh token is sent twice, unless its first use was in doubt, and then not before the doubt was waited for. */
export function resentTokens(stage: Sent): string[] {
  const byToken = new Map<string, JournalEntry[]>();
  for (const entry of stage.control.journal()) {
    if (entry.grantType !== 'refresh_token' || entry.tokenFingerprint === null) continue;
    byToken.set(entry.tokenFingerprint, [...(byToken.get(entry.tokenFingerprint) ?? []), entry]);
  }
  return [...byToken.values()].flatMap((uses) =>
    uses.slice(1).flatMap((later, index) => {
      const earlier = uses[index];
      const wrong = earlier === undefined ? null : judge(stage, earlier, later);
      return wrong === null ? [] : [`I1 ${wrong}`];
    }),
  );
}

function judge({ interruptions, excused, seconds }: Sent, earlier: JournalEntry, later: JournalEntry): string | null {
  const [from, to] = [Date.parse(earlier.at), Date.parse(later.at)];
  const isRefused = earlier.outcome === 'reused-token';
  if (earlier.outcome !== 'rotated' && !isRefused) return null;
  const excuse = excused.get(earlier.tokenFingerprint ?? '');
  if (excuse === 'kept') return null;
  const isInterrupted = interruptions.some((at) => at >= from - 100 && at <= to);
  if (earlier.fault === null && excuse === undefined && !isInterrupted) {
    return `a refresh token was sent again after it had been ${isRefused ? 'refused' : 'traded in'}`;
  }
  if (to - from < seconds.doubt * 1_000 - 250) return `a doubt was not waited for: ${to - from} ms`;
  return null;
}

/** No caller gets a token that was fenced off: one token for each version, and versions that do not go back. */
export function fencedTokens(readings: readonly Reading[]): string[] {
  const problems: string[] = [];
  const byGrant = new Map<string, Reading[]>();
  for (const reading of readings) {
    if (reading.token !== null) byGrant.set(reading.grantId, [...(byGrant.get(reading.grantId) ?? []), reading]);
  }
  for (const [grantId, given] of byGrant) {
    const tokens = new Map<number, string>();
    let newest = 0;
    const ends = given.toSorted((a, b) => a.endedAt - b.endedAt);
    let seen = 0;
    for (const { version, token, startedAt } of given.toSorted((a, b) => a.startedAt - b.startedAt)) {
      if (version === null || token === null) continue;
      for (; (ends[seen]?.endedAt ?? Infinity) < startedAt; seen += 1) {
        newest = Math.max(newest, ends[seen]?.version ?? 0);
      }
      if (version < newest) problems.push(`I2 ${grantId}: version ${version} was given after version ${newest}`);
      const known = tokens.get(version);
      if (known !== undefined && known !== token.fingerprint) {
        problems.push(`I2 ${grantId}: two tokens were given as version ${version}`);
      }
      tokens.set(version, token.fingerprint);
    }
  }
  return problems.slice(0, 5);
}

async function filesOf(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const texts = await Promise.all(files.map(async (file) => [file, await readFile(file, 'latin1')] as const));
  return Object.fromEntries(texts);
}

/** No secret of the sandbox is in what was printed, answered beside credentials, stored, or left on disk. */
async function leaks(stage: Stage): Promise<string[]> {
  const places: Record<string, string> = { answers: stage.texts.join('\n') };
  for (const { process, dataDir } of stage.servers) {
    places[`output of process ${process.pid}`] = process.output();
    Object.assign(places, await filesOf(dataDir));
  }
  return (await findCanaries(places, stage.db)).map((leak) => `I5 ${leak}`);
}

interface GrantRow {
  rowId: string;
  tenantId: string;
  userId: string;
  status: string;
  reason: string;
  lastReason: string | null;
}

/** Every grant either has a token that Zoom takes, or a reason with its event. */
async function finalStates(stage: Stage, server: Server): Promise<string[]> {
  const grants = await stage.db.query<GrantRow>(sql`
    SELECT g.id AS "rowId", t.external_id AS "tenantId", g.external_user_id AS "userId", g.health_status AS status,
      g.health_reason AS reason, (SELECT e.reason FROM health_event e WHERE e.grant_id = g.id ORDER BY sequence DESC LIMIT 1)
        AS "lastReason"
    FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id WHERE g.kind = 'USER_CONNECTION' ORDER BY g.id`);
  const unsaid = grants
    .filter(({ reason, lastReason }) => reason !== lastReason)
    .map(({ rowId, reason, lastReason }) => `I6 ${rowId} is ${reason}, its last event says ${lastReason}`);
  const live = grants.filter(({ status }) => status === 'HEALTHY' || status === 'DEGRADED');
  const step = Math.max(1, Math.ceil(live.length / READ_AT_THE_END));
  const useless: string[] = [];
  for (const { rowId, tenantId, userId } of live.filter((_, index) => index % step === 0)) {
    const reading = await stage.read(server, { rowId, input: { tenantId, credentialFor: 'USER', userId } });
    const status = reading.token === null ? null : await meStatus(stage.callers, reading.token);
    if (status !== 200)
      useless.push(`I6 ${rowId} is live and gives ${reading.kind}, which Zoom answers with ${status}`);
  }
  return [...unsaid.slice(0, 5), ...useless.slice(0, 5)];
}

/** Heals the stage and tells every rule that its history breaks. */
export async function brokenInvariants(stage: Stage): Promise<string[]> {
  const crashes = stage.servers.flatMap(({ process }) => process.crash() ?? []);
  const restless = await heal(stage);
  const [server] = stage.live();
  return [
    ...crashes,
    ...restless,
    ...(server === undefined ? ['I6 no server is left'] : await finalStates(stage, server)),
    ...resentTokens(stage).slice(0, 5),
    ...fencedTokens(stage.readings),
    ...(await backwardSteps(stage.db)).map((step) => `I3 ${step}`),
    ...(await unevenTransitions(stage.db)).map((text) => `I4 ${text}`),
    ...(await leaks(stage)),
  ];
}

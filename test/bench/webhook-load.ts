import { createHmac, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool } from 'undici';

export interface Receiver {
  /** Origin and path that events are delivered to. */
  origin: string;
  path: string;
  secret: string;
  clientId: string;
  accountId: string;
  userIds: readonly string[];
}

export interface Round {
  /** Events that were acknowledged, a second. */
  perSecond: number;
  acknowledged: number;
  failed: number;
  /** Milliseconds from when an event was due to be sent until its acknowledgement was read. */
  p50: number;
  p99: number;
  max: number;
}

/** One event of a mix: of a hundred, 70 about meetings, 28 about users, and 2 deauthorizations. No two are the same. */
function nextEvent({ userIds, clientId, accountId }: Receiver, serial: number): string {
  const userId = userIds[serial % userIds.length];
  const event_ts = Date.now();
  const kind = serial % 100;
  if (kind < 2) {
    const payload = { account_id: accountId, user_id: userId, client_id: clientId, signature: randomUUID() };
    const deauthorization_time = new Date(event_ts).toISOString();
    return JSON.stringify({ event: 'app_deauthorized', event_ts, payload: { ...payload, deauthorization_time } });
  }
  if (kind < 30) {
    const object = { id: userId, email: `${randomUUID()}@bench.example`, display_name: `User ${serial}` };
    return JSON.stringify({ event: 'user.updated', event_ts, payload: { account_id: accountId, object } });
  }
  const object = { id: 90_000_000_000 + serial, uuid: randomUUID(), host_id: userId, topic: 'Weekly', type: 2 };
  const payload = { account_id: accountId, operator: 'operator@bench.example', operator_id: userId, object };
  return JSON.stringify({ event: 'meeting.created', event_ts, payload });
}

/**
 * Delivers events for a while and measures their acknowledgements.
 *
 * @param load `perSecond`: they are due at this rate, and each is measured from when it was due, also if the sender was
 * late. Without it each of the `connections` sends as soon as it was answered.
 */
export async function deliverEvents(
  receiver: Receiver,
  load: { seconds: number; connections: number; perSecond?: number; firstSerial: number },
): Promise<Round> {
  const pool = new Pool(receiver.origin, { connections: load.connections });
  const latencies: number[] = [];
  let failed = 0;
  let serial = load.firstSerial;
  const deliver = async (dueAt: number): Promise<void> => {
    const body = nextEvent(receiver, serial++);
    const timestamp = String(Math.floor(Date.now() / 1_000));
    const digest = createHmac('sha256', receiver.secret).update(`v0:${timestamp}:${body}`).digest('hex');
    const answer = await pool.request({
      method: 'POST',
      path: receiver.path,
      headers: {
        'content-type': 'application/json; charset=utf-8',
        'x-zm-request-timestamp': timestamp,
        'x-zm-signature': `v0=${digest}`,
      },
      body,
    });
    await answer.body.dump();
    if (answer.statusCode === 200) latencies.push(performance.now() - dueAt);
    else failed += 1;
  };
  const settle = (dueAt: number) =>
    deliver(dueAt).catch(() => {
      failed += 1;
    });

  const startedAt = performance.now();
  const endsAt = startedAt + load.seconds * 1_000;
  if (load.perSecond === undefined) {
    const sender = async () => {
      while (performance.now() < endsAt) await settle(performance.now());
    };
    await Promise.all(Array.from({ length: load.connections }, sender));
  } else {
    const count = load.perSecond * load.seconds;
    const running: Promise<void>[] = [];
    for (let index = 0; index < count; index += 1) {
      const dueAt = startedAt + (index * 1_000) / load.perSecond;
      const wait = dueAt - performance.now();
      if (wait > 0) await sleep(wait);
      running.push(settle(dueAt));
    }
    await Promise.all(running);
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  await pool.close();
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return {
    perSecond: sorted.length / seconds,
    acknowledged: sorted.length,
    failed,
    p50: at(0.5),
    p99: at(0.99),
    max: at(1),
  };
}

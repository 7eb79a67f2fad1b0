import { expect, test } from 'vitest';
import { createHealthEventLog } from '../src/domain/health-event.js';
import { systemClock } from '../src/clock.js';
import { createHealthEventStream, type HealthEventLog, type HealthEventPointer } from '../src/feed/event-stream.js';
import { createFeed, HEALTH_TOPIC } from '../src/feed/feed.js';
import { stoppable } from '../src/feed/stoppable.js';
import { openTestDatabase } from './support/database.js';
import { createManualClock } from './support/manual-clock.js';
import { flip, makeGrants } from './support/transitions.js';
import { until } from './support/until.js';

const db = await openTestDatabase();
const all = () => true;

/** The stored log, with a count of how often it is asked. */
function countedLog(log: HealthEventLog = createHealthEventLog(db)): HealthEventLog & { reads: number } {
  const counted = {
    reads: 0,
    latest: () => ((counted.reads += 1), log.latest()),
    after: (position: number, limit: number) => ((counted.reads += 1), log.after(position, limit)),
  };
  return counted;
}

async function take(events: AsyncIterator<HealthEventPointer>, count: number): Promise<number[]> {
  const positions: number[] = [];
  while (positions.length < count) {
    const { value, done } = await events.next();
    if (done) break;
    positions.push(value.position);
  }
  return positions;
}

const upTo = (from: number, count: number) => Array.from({ length: count }, (_, index) => from + index + 1);

test('a listener is woken at once, by each signal, and by the poll interval without one', async () => {
  const clock = createManualClock();
  const feed = createFeed({ clock, pollMs: 1_000 });
  const stop = new AbortController();
  const wakeUps = feed.wakeUps('topic', stop.signal);
  expect(await wakeUps.next()).toEqual({ done: false, value: undefined });
  feed.publish('topic');
  feed.publish('topic');
  expect((await wakeUps.next()).done).toBe(false);
  // Two signals while nobody waited are one; now only the interval is left.
  const polled = wakeUps.next();
  await clock.sleeping();
  feed.publish('another topic');
  await clock.advance(1_000);
  expect((await polled).done).toBe(false);
  const last = wakeUps.next();
  await clock.sleeping();
  stop.abort();
  expect((await last).done).toBe(true);
});

test('a feed that closes ends whoever listens, and whoever comes later', async () => {
  const feed = createFeed({ clock: createManualClock(), pollMs: 1_000 });
  const stop = new AbortController();
  const wakeUps = feed.wakeUps('topic', stop.signal);
  await wakeUps.next();
  const waiting = wakeUps.next();
  feed.close();
  expect((await waiting).done).toBe(true);
  expect((await feed.wakeUps('topic', stop.signal).next()).done).toBe(true);
});

test('what waits for something that never comes can still be left', async () => {
  let cleaned = false;
  const endless = stoppable<number>(async function* (signal) {
    try {
      yield 1;
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    } finally {
      cleaned = true;
    }
  });
  expect(await endless.next()).toEqual({ done: false, value: 1 });
  const waiting = endless.next();
  await endless.return?.();
  expect([cleaned, await waiting]).toEqual([true, { done: true, value: undefined }]);
});

test('a subscriber gets what was stored behind its cursor and then what comes, each once and in order', async () => {
  const [grant] = await makeGrants(db, 1);
  const log = createHealthEventLog(db);
  const feed = createFeed({ clock: systemClock, pollMs: 20 });
  const stop = new AbortController();
  const start = await log.latest();
  await flip(db, grant!, 450);
  const events = createHealthEventStream(log, feed).subscribe({ after: start, matches: all, signal: stop.signal });
  const writing = flip(db, grant!, 250);
  expect(await take(events, 700)).toEqual(upTo(start, 700));
  await writing;
  stop.abort();
  expect((await events.next()).done).toBe(true);
});

test('events that the writer does not announce are found within the poll interval, and announced ones without it', async () => {
  const [grant] = await makeGrants(db, 1);
  const log = createHealthEventLog(db);
  const clock = createManualClock();
  const feed = createFeed({ clock, pollMs: 1_000 });
  const stop = new AbortController();
  const start = await log.latest();
  const events = createHealthEventStream(log, feed).subscribe({ after: start, matches: all, signal: stop.signal });
  const first = events.next();
  await clock.sleeping();
  await flip(db, grant!, 1);
  feed.publish(HEALTH_TOPIC);
  expect((await first).value?.position).toBe(start + 1);
  const second = events.next();
  await clock.sleeping();
  await flip(db, grant!, 1);
  await clock.advance(1_000);
  expect((await second).value?.position).toBe(start + 2);
  stop.abort();
});

test('a subscriber that does not read costs no more than its queue, holds up nobody, and misses nothing', async () => {
  const [grant] = await makeGrants(db, 1);
  const stored = createHealthEventLog(db);
  // The stored events again and again, at growing positions: as many as a test has no time to write.
  const start = await stored.latest();
  await flip(db, grant!, 1);
  const [sample] = await stored.after(start, 1);
  let newest = 0;
  let largest = 0;
  const endless: HealthEventLog = {
    latest: async () => newest,
    after: async (position, limit) => {
      const events = upTo(position, Math.min(limit, newest - position)).map((at) => ({ ...sample!, position: at }));
      largest = Math.max(largest, events.length);
      return events;
    },
  };
  const feed = createFeed({ clock: systemClock, pollMs: 10 });
  const stop = new AbortController();
  const stream = createHealthEventStream(endless, feed);
  const slow = stream.subscribe({ after: 0, matches: all, signal: stop.signal });
  const quick = stream.subscribe({ after: 0, matches: all, signal: stop.signal });
  newest = 1;
  expect([await take(slow, 1), await take(quick, 1)]).toEqual([[1], [1]]);
  newest = 50_000;
  feed.publish(HEALTH_TOPIC);
  expect(await take(quick, 49_999)).toEqual(upTo(1, 49_999));
  expect(await take(slow, 49_999)).toEqual(upTo(1, 49_999));
  expect(largest).toBeLessThanOrEqual(200);
  stop.abort();
});

test('the log is read by one reader for all subscribers, and by nobody once the last has left', async () => {
  const log = countedLog();
  const feed = createFeed({ clock: systemClock, pollMs: 10 });
  const stream = createHealthEventStream(log, feed);
  const open = Array.from({ length: 50 }, () =>
    stoppable((signal) => stream.subscribe({ after: null, matches: () => false, signal })),
  );
  const waiting = open.map((events) => events.next());
  await until(() => log.reads >= 101);
  const reads = log.reads;
  await until(() => log.reads > reads + 5);
  await Promise.all(open.map(async (events) => events.return?.()));
  expect(await Promise.all(waiting)).toEqual(open.map(() => ({ done: true, value: undefined })));
  const before = log.reads;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(log.reads - before).toBeLessThanOrEqual(1);
});

test('a log that is away ends the subscriptions that begin, and no others', async () => {
  const [grant] = await makeGrants(db, 1);
  const stored = createHealthEventLog(db);
  let away = true;
  const fail = async () => {
    throw new Error('The database is away.');
  };
  const log: HealthEventLog = {
    latest: () => (away ? fail() : stored.latest()),
    after: (position, limit) => (away ? fail() : stored.after(position, limit)),
  };
  const feed = createFeed({ clock: systemClock, pollMs: 10 });
  const stop = new AbortController();
  const stream = createHealthEventStream(log, feed);
  await expect(stream.subscribe({ after: null, matches: all, signal: stop.signal }).next()).rejects.toThrow('away');
  away = false;
  const start = await stored.latest();
  const events = stream.subscribe({ after: start, matches: all, signal: stop.signal });
  await flip(db, grant!, 1);
  expect(await take(events, 1)).toEqual([start + 1]);
  const next = events.next();
  away = true;
  await flip(db, grant!, 1);
  feed.publish(HEALTH_TOPIC);
  away = false;
  expect((await next).value?.position).toBe(start + 2);
  stop.abort();
});

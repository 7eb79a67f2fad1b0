import { expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createBroadcast, type Listener, SlowListenerError } from '../src/feed/broadcast.js';
import { createHealthEventStream, type HealthEventLog, PositionExpiredError } from '../src/feed/event-stream.js';
import { createFeed, HEALTH_TOPIC } from '../src/feed/feed.js';
import { createRandom } from './support/random.js';
import { until } from './support/until.js';

interface Told extends Listener<number> {
  positions: number[];
  ends: unknown[];
}

/** What is told, without a database: as many events as a test wants, each a step further than the last. */
function startBroadcast(sizeOf: (position: number) => number = () => 1) {
  const state = { newest: 0, oldest: 0, isDown: false, rendered: [] as number[], refused: new Set<Told>() };
  const log: HealthEventLog = {
    latest: async () => state.newest,
    after: async (position, limit) => {
      if (state.isDown) throw new Error('The database is away.');
      if (position < state.oldest) throw new PositionExpiredError();
      const count = Math.max(0, Math.min(limit, state.newest - position));
      return Array.from({ length: count }, (_, index) => {
        const at = position + index + 1;
        return { id: String(at), position: at, tenantId: 't', grantId: null };
      });
    },
  };
  const feed = createFeed({ clock: systemClock, pollMs: 20 });
  const broadcast = createBroadcast<number, Told>({ log, stream: createHealthEventStream(log, feed), sizeOf });
  const audience = {
    matches: () => true,
    render: async ({ position }: { position: number }) => {
      state.rendered.push(position);
      await new Promise((resolve) => setImmediate(resolve));
      return position;
    },
    excluded: async (listeners: readonly Told[]) =>
      new Map(listeners.filter((one) => state.refused.has(one)).map((one) => [one, 'refused'])),
  };
  const listener = (after: number | null, isSlow = () => false): Told => {
    const told: Told = {
      after,
      positions: [],
      ends: [],
      send: (position) => void told.positions.push(position),
      isSlow,
      drained: async () => undefined,
      end: (error) => void told.ends.push(error),
    };
    return told;
  };
  const join = (told: Told, key = 'key') => broadcast.join(key, () => audience, told);
  const write = (count: number) => {
    state.newest += count;
    feed.publish(HEALTH_TOPIC);
  };
  return { state, feed, listener, join, write };
}

const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index + 1);

test('an event is rendered once for all listeners of a group, and once more for those of another', async () => {
  const { state, listener, join, write } = startBroadcast();
  const group = Array.from({ length: 50 }, () => listener(0));
  const leave = [...group.map((one) => join(one)), join(listener(0), 'other')];
  write(20);
  for (const one of group) await until(() => one.positions.length === 20);
  await until(() => state.rendered.length >= 40);
  expect(state.rendered.toSorted((a, b) => a - b)).toEqual(upTo(0, 20).flatMap((at) => [at, at]));
  for (const one of group) expect(one.positions).toEqual(upTo(0, 20));
  for (const go of leave) go();
});

test('whoever joins, at whatever moment and behind whatever event, is told each later one once and in order', async () => {
  const { state, feed, listener, join, write } = startBroadcast();
  const random = createRandom();
  const told: { one: Told; from: number }[] = [];
  for (let round = 0; round < 200; round += 1) {
    write(random.of([0, 1, 3, 250]));
    if (random.chance(0.5)) {
      const from = random.chance(0.3) ? null : Math.max(0, state.newest - random.of([0, 1, 5, 400]));
      const one = listener(from);
      told.push({ one, from: from ?? state.newest });
      join(one);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  write(1);
  for (const { one } of told) await until(() => one.positions.at(-1) === state.newest);
  for (const { one, from } of told) {
    // Without a cursor it begins at some moment around the joining, and has no gap either.
    const start = one.after === null ? one.positions[0]! - 1 : from;
    expect(start, `LATCHKEY_TEST_SEED=${random.seed}`).toBeGreaterThanOrEqual(from);
    expect(one.positions, `LATCHKEY_TEST_SEED=${random.seed}`).toEqual(upTo(start, state.newest));
  }
  feed.close();
  for (const { one } of told) await until(() => one.ends.length === 1);
  expect(told.every(({ one }) => one.ends[0] === null)).toBe(true);
});

test('one that may no longer be told, and one that does not read, are ended by themselves and the others go on', async () => {
  const { state, listener, join, write } = startBroadcast();
  let isSlow = false;
  const [refused, slow, other] = [listener(null), listener(null, () => isSlow), listener(null)];
  for (const one of [refused, slow, other]) join(one);
  // They have joined when they are told.
  for (const one of [refused, slow, other]) {
    await until(() => {
      write(1);
      return one.positions.length > 0;
    });
  }
  state.refused.add(refused);
  isSlow = true;
  const [before, last] = [state.newest, state.newest + 5];
  write(5);
  await until(() => other.positions.at(-1) === last);
  expect(refused.ends).toEqual(['refused']);
  expect(slow.ends).toEqual([expect.any(SlowListenerError)]);
  for (const one of [refused, slow]) expect(one.positions.at(-1)).toBeLessThanOrEqual(before);
});

test('one that does not read what is stored is told no more of it until it has, and then each event once and in order', async () => {
  const { listener, join, write } = startBroadcast();
  let hasRead = () => undefined as void;
  let unread = 0;
  const one: Told = {
    ...listener(0, () => unread >= 10),
    drained: () =>
      new Promise<void>((resolve) => {
        hasRead = () => {
          unread = 0;
          resolve();
        };
      }),
  };
  const { send } = one;
  one.send = (position) => {
    unread += 1;
    send(position);
  };
  write(300);
  join(one);
  for (let told = 10; told <= 300; told += 10) {
    await until(() => one.positions.length === told);
    await new Promise((resolve) => setImmediate(resolve));
    expect(one.positions).toEqual(upTo(0, told));
    hasRead();
  }
  write(5);
  await until(() => one.positions.length === 305);
  expect([one.positions, one.ends]).toEqual([upTo(0, 305), []]);
});

test('what was made of events is kept for others as far as it takes little memory', async () => {
  const { state, listener, join, write } = startBroadcast(() => 300_000);
  write(20);
  for (const one of [listener(0), listener(0)]) {
    join(one);
    await until(() => one.positions.length === 20);
  }
  expect(state.rendered).toEqual([...upTo(0, 20), ...upTo(0, 20)]);
});

test('a position that is gone, and a log that cannot be read, end those who ask for it', async () => {
  const { state, listener, join, write } = startBroadcast();
  write(10);
  state.oldest = 5;
  const [old, good] = [listener(4), listener(5)];
  for (const one of [old, good]) join(one);
  await until(() => good.positions.length === 5 && old.ends.length === 1);
  expect([old.positions, old.ends]).toEqual([[], [expect.any(PositionExpiredError)]]);
  state.isDown = true;
  const late = listener(6);
  join(late);
  await until(() => late.ends.length === 1);
  expect(late.ends).toEqual([expect.objectContaining({ message: 'The database is away.' })]);
  // Who is live waits for it to come back, and has missed nothing.
  write(3);
  state.isDown = false;
  await until(() => good.positions.length === 8);
  expect(good.positions).toEqual(upTo(5, 13));
});

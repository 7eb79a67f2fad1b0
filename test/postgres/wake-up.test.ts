import { expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { createFeed, type Feed, HEALTH_TOPIC } from '../../src/feed/feed.js';
import { createRedisFeed } from '../../src/feed/redis-wake-ups.js';
import { createLog } from '../../src/log.js';
import { Secret } from '../../src/secret.js';
import { startRedis } from '../support/redis.js';
import { until } from '../support/until.js';

const redis = await startRedis();
const POLL_MS = 1_000;

/** The feed of a process, and what it has logged. */
function openFeed({ url = redis.url, pollMs = POLL_MS } = {}): { feed: Feed; logs: string[] } {
  const logs: string[] = [];
  const log = createLog('debug', { write: (line) => void logs.push(line) });
  return { feed: createRedisFeed(createFeed({ clock: systemClock, pollMs }), { url: new Secret(url), log }), logs };
}

const listeners = async () => ((await redis.command('PUBSUB', 'NUMSUB', 'latchkey:wake:0')) as [string, number])[1];

/** How long after `act` a listener of the topic is woken. */
async function latencyMs(feed: Feed, topic: string, act: () => void): Promise<number> {
  const stop = new AbortController();
  const wakeUps = feed.wakeUps(topic, stop.signal);
  await wakeUps.next();
  const woken = wakeUps.next();
  await new Promise((resolve) => setImmediate(resolve));
  const began = performance.now();
  act();
  await woken;
  stop.abort();
  return performance.now() - began;
}

test('a change in one process wakes the listeners of another at once, and of no other topic', async () => {
  const [one, other] = [openFeed(), openFeed()];
  await until(async () => (await listeners()) === 2);
  expect(await latencyMs(other.feed, HEALTH_TOPIC, () => one.feed.publish(HEALTH_TOPIC))).toBeLessThan(POLL_MS / 2);
  expect(await latencyMs(one.feed, HEALTH_TOPIC, () => one.feed.publish(HEALTH_TOPIC))).toBeLessThan(100);
  expect(await latencyMs(other.feed, 'authorization:a', () => one.feed.publish('authorization:b'))).toBeGreaterThan(
    POLL_MS - 50,
  );
  for (const { feed } of [one, other]) feed.close();
  await until(async () => (await listeners()) === 0);
});

test('deployments that name other databases of one Redis do not wake each other', async () => {
  const [one, other] = [openFeed(), openFeed({ url: `${redis.url}/1` })];
  await until(async () => (await listeners()) === 1);
  expect(await latencyMs(other.feed, HEALTH_TOPIC, () => one.feed.publish(HEALTH_TOPIC))).toBeGreaterThan(POLL_MS - 50);
  for (const { feed } of [one, other]) feed.close();
});

test('a Redis that is flushed, asleep or gone costs its listeners a poll interval, and is used again when it is back', async () => {
  const [one, other] = [openFeed(), openFeed()];
  const signal = () => latencyMs(other.feed, HEALTH_TOPIC, () => one.feed.publish(HEALTH_TOPIC));
  await until(async () => (await listeners()) === 2);
  await redis.command('FLUSHALL');
  expect(await signal()).toBeLessThan(POLL_MS / 2);

  const asleep = redis.command('DEBUG', 'SLEEP', '2.5');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await signal()).toBeLessThan(POLL_MS + 500);
  await asleep;

  await redis.stop();
  expect(await signal()).toBeLessThan(POLL_MS + 500);
  const began = performance.now();
  for (let i = 0; i < 10_000; i += 1) one.feed.publish(`authorization:${i}`);
  expect(performance.now() - began).toBeLessThan(500);
  await redis.start();
  await until(async () => (await listeners()) === 2);
  await until(async () => (await signal()) < POLL_MS / 2);
  // Told once each time, however often it was tried.
  const told = other.logs.filter((line) => line.includes('cannot be reached')).length;
  expect(told).toBeGreaterThanOrEqual(1);
  expect(told).toBeLessThanOrEqual(2);
  await until(() => other.logs.filter((line) => line.includes('reached again')).length === told);
  for (const { feed } of [one, other]) feed.close();
});

test('a server starts without the Redis that it is told of', async () => {
  const { feed, logs } = openFeed({ url: 'redis://:password@127.0.0.1:1', pollMs: 50 });
  expect(await latencyMs(feed, HEALTH_TOPIC, () => undefined)).toBeLessThan(1_000);
  await until(() => logs.length > 0);
  expect(logs.join('')).not.toContain('password');
  feed.close();
});

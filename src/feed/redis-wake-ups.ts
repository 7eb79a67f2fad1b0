import { randomUUID } from 'node:crypto';
import { Redis, type RedisOptions } from 'ioredis';
import type { Log } from '../log.js';
import type { Secret } from '../secret.js';
import type { Feed } from './feed.js';

const CONNECT_TIMEOUT_MS = 2_000;
/** How long a signal may be on its way before it is given up: by then the others have looked by themselves. */
const PUBLISH_TIMEOUT_MS = 1_000;
const MAX_RECONNECT_MS = 2_000;
/** How often a connection that only listens is tried, and how long its answer is awaited. */
const PING_MS = 5_000;
const SILENCE_MS = 12_000;
/** Topics that may wait for Redis to answer; signals beyond that are lost, which costs latency. */
const MAX_WAITING = 1_000;
const MAX_TOPIC_LENGTH = 100;

/**
 * Lets a feed wake the listeners of other processes as well, by Redis publish and subscribe. Signals carry nothing but
 * the name of what changed, and everybody looks again by themselves once per poll interval. So Redis may be stopped,
 * flushed or slow at any time: what is lost is latency, and no caller waits for it.
 *
 * @param url its database number is part of the channel's name, so that deployments that share a Redis can be kept apart.
 */
export function createRedisFeed(feed: Feed, { url, log }: { url: Secret; log: Log }): Feed {
  const self = randomUUID();
  const channel = channelOf(url.reveal());
  const options: RedisOptions = {
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAlive: 10_000,
    // Nothing is kept for a Redis that is away.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    // Publish and subscribe work while a data set is being loaded, and need none.
    enableReadyCheck: false,
    retryStrategy: (attempt) => Math.min(attempt * 100, MAX_RECONNECT_MS),
  };
  const publisher = new Redis(url.reveal(), { ...options, commandTimeout: PUBLISH_TIMEOUT_MS });
  const subscriber = new Redis(url.reveal(), { ...options, autoResubscribe: false, socketTimeout: SILENCE_MS });
  const away = new Set<Redis>();
  let isClosed = false;

  const noteAway = (connection: Redis): void => {
    if (away.size === 0 && !isClosed)
      log.warn('Redis cannot be reached; other processes hear of changes when they poll');
    away.add(connection);
  };
  const noteBack = (connection: Redis): void => {
    if (away.delete(connection) && away.size === 0) log.info('Redis is reached again');
  };

  for (const connection of [publisher, subscriber]) {
    connection.on('error', () => noteAway(connection));
    connection.on('close', () => noteAway(connection));
  }
  publisher.on('ready', () => noteBack(publisher));
  subscriber.on('ready', () => {
    // Where it fails, the connection has been lost again.
    subscriber.subscribe(channel).then(
      () => noteBack(subscriber),
      () => noteAway(subscriber),
    );
  });
  subscriber.on('message', (_channel: string, message: string) => {
    const [from, topic = ''] = message.split(' ', 2);
    // Whoever can write to Redis can make this process look; there is nothing else that a message can do.
    if (from !== self && topic.length <= MAX_TOPIC_LENGTH) feed.publish(topic);
  });
  const pings = setInterval(() => {
    // Without an answer the socket times out, and is opened anew.
    if (subscriber.status === 'ready') subscriber.ping().catch(() => undefined);
  }, PING_MS);
  pings.unref();

  const waiting = new Set<string>();
  let isPublishing = false;

  /** One signal is on its way at a time; those that come meanwhile are folded into one for each topic. */
  async function publishWaiting(): Promise<void> {
    isPublishing = true;
    for (const topic of waiting) {
      waiting.delete(topic);
      try {
        await publisher.publish(channel, `${self} ${topic}`);
        noteBack(publisher);
      } catch {
        // One that is not connected yet, or not any more, has told so.
        if (publisher.status === 'ready') noteAway(publisher);
      }
    }
    isPublishing = false;
  }

  return {
    ...feed,
    publish: (topic) => {
      feed.publish(topic);
      if (isClosed || waiting.size >= MAX_WAITING) return;
      waiting.add(topic);
      if (!isPublishing) void publishWaiting();
    },
    close: () => {
      isClosed = true;
      clearInterval(pings);
      publisher.disconnect();
      subscriber.disconnect();
      feed.close();
    },
  };
}

/** Publish and subscribe know no databases, so the number is told in the name. */
function channelOf(url: string): string {
  const number = /^\/(\d+)$/.exec(new URL(url).pathname)?.[1] ?? '0';
  return `latchkey:wake:${number}`;
}

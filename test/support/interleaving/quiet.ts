import { createFeed } from '../../../src/feed/feed.js';
import { createLog } from '../../../src/log.js';

const nobody = { now: () => new Date(0), sleep: () => Promise.resolve() };

/** A log that nobody reads and a feed that nobody listens to. */
export const quiet = { log: createLog('silent'), feed: createFeed({ clock: nobody, pollMs: 1_000 }) };

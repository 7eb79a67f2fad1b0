import { LRUCache } from 'lru-cache';
import type { HealthEventLog, HealthEventPointer, HealthEventStream } from './event-stream.js';

const READ_BATCH = 200;
/** How long what was made of an event is kept for those who come back together and read it from the log. */
const RENDERED_MS = 1_000;
const MAX_RENDERED = 500;
/** What is kept so for one group, be it of few events or many. */
const MAX_RENDERED_BYTES = 1_048_576;
/** Events that are read together: few enough to leave most connections of the database to others. */
const RENDERED_AT_ONCE = 8;
/** After so many listeners other work of the process has its turn. */
const SENT_AT_ONCE = 1_000;

/** More waits for a listener than it may leave unread. */
export class SlowListenerError extends Error {
  constructor() {
    super('The listener reads more slowly than it is told.');
    this.name = 'SlowListenerError';
  }
}

/** Somebody who is told of events. None of its functions may throw. */
export interface Listener<Message> {
  /** Position to go on behind; null: from now on. */
  readonly after: number | null;
  send(message: Message): void;
  /** Whether more waits to be read than may. Asked before each message, so that one at most is above that. */
  isSlow(): boolean;
  /** Resolves when what waited has been read, or the listener is gone. Asked while it is told what is stored. */
  drained(): Promise<void>;
  /** Told last, and once. Null: there are no more events, because the process ends. */
  end(error: unknown): void;
}

/** What all listeners of one group have in common. */
export interface Audience<Message, L extends Listener<Message>> {
  matches(event: HealthEventPointer): boolean;
  /** @returns what the listeners are told; null: nothing. */
  render(event: HealthEventPointer): Promise<Message | null>;
  /**
   * Asked when an event has been stored, before it is told.
   *
   * @returns those who may not be told of it, nor of any later one.
   */
  excluded(listeners: readonly L[]): Promise<ReadonlyMap<L, unknown>>;
}

export interface Broadcast<Message, L extends Listener<Message>> {
  /**
   * Tells a listener every event of its audience from its position on, each once and in order: first what is stored,
   * then what comes, without a gap between. Listeners with the same key share one audience, for which each event is
   * rendered once.
   *
   * @returns leaves; the listener is told nothing any more, not even the end.
   */
  join(key: string, makeAudience: () => Audience<Message, L>, listener: L): () => void;
}

interface Member<L> {
  listener: L;
  /** The last event that it was told, or that was not for it. */
  position: number;
  /** Whether it is told what comes; before, it reads what is stored. */
  isLive: boolean;
  isGone: boolean;
}

interface Group<Message, L extends Listener<Message>> {
  key: string;
  audience: Audience<Message, L>;
  members: Set<Member<L>>;
  /** The last event that is handed to those who are live; whoever is not goes on to it by themselves. */
  position: number;
  ready: Promise<void>;
  stop: AbortController;
  rendered: LRUCache<string, Promise<{ message: Message | null }>>;
}

/** A question whose answer may be shared by all who ask before it is put. */
function shared<T>(ask: () => Promise<T>): () => Promise<T> {
  let running: Promise<unknown> = Promise.resolve();
  let next: Promise<T> | null = null;
  return () => {
    if (next !== null) return next;
    const started = running.then(() => {
      next = null;
      const answer = ask();
      running = answer.catch(() => undefined);
      return answer;
    });
    next = started;
    return started;
  };
}

/**
 * Tells each event to any number of listeners, at the cost of one for each group of them.
 *
 * @param options.sizeOf about the bytes of memory that a message takes.
 */
export function createBroadcast<Message, L extends Listener<Message>>(options: {
  log: HealthEventLog;
  stream: HealthEventStream;
  sizeOf: (message: Message) => number;
}): Broadcast<Message, L> {
  const { log, stream, sizeOf } = options;
  const groups = new Map<string, Group<Message, L>>();
  const latest = shared(() => log.latest());

  function leave(group: Group<Message, L>, member: Member<L>): void {
    member.isGone = true;
    group.members.delete(member);
    if (group.members.size > 0) return;
    group.stop.abort();
    if (groups.get(group.key) === group) groups.delete(group.key);
  }

  function end(group: Group<Message, L>, member: Member<L>, error: unknown): void {
    if (member.isGone) return;
    leave(group, member);
    member.listener.end(error);
  }

  const endAll = (group: Group<Message, L>, error: unknown): void => {
    for (const member of group.members) end(group, member, error);
  };

  /** Those who come back together after a break are told the same events, which are then rendered once. */
  async function render(group: Group<Message, L>, event: HealthEventPointer): Promise<Message | null> {
    const { rendered } = group;
    const known = rendered.get(event.id);
    if (known !== undefined) return (await known).message;
    const rendering = group.audience.render(event).then((message) => ({ message }));
    rendered.set(event.id, rendering, { size: 1 });
    try {
      const { message } = await rendering;
      // Only now is it known how much that is, and a size is that of one value. One that is too large is not kept.
      if (message !== null && rendered.peek(event.id) === rendering)
        rendered.set(event.id, Promise.resolve({ message }), { size: sizeOf(message) });
      return message;
    } catch (error) {
      rendered.delete(event.id);
      throw error;
    }
  }

  /** Ends those of some members that may not be told any more. */
  async function exclude(group: Group<Message, L>, members: readonly Member<L>[]): Promise<void> {
    if (members.length === 0) return;
    const excluded = await group.audience.excluded(members.map(({ listener }) => listener));
    if (excluded.size === 0) return;
    for (const member of members) {
      if (excluded.has(member.listener)) end(group, member, excluded.get(member.listener));
    }
  }

  /** Events with what is told of them, some at a time: reading them together costs less, and each waits for a database. */
  async function* renderAll(group: Group<Message, L>, events: readonly HealthEventPointer[]) {
    for (let start = 0; start < events.length; start += RENDERED_AT_ONCE) {
      const some = events.slice(start, start + RENDERED_AT_ONCE);
      yield await Promise.all(some.map(async (event) => ({ event, message: await render(group, event) })));
    }
  }

  async function tell(group: Group<Message, L>, event: HealthEventPointer, message: Message | null): Promise<void> {
    let sent = 0;
    for (const member of group.members) {
      if (!member.isLive || member.position >= event.position) continue;
      member.position = event.position;
      if (message === null) continue;
      if (member.listener.isSlow()) end(group, member, new SlowListenerError());
      else member.listener.send(message);
      sent += 1;
      if (sent % SENT_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async function run(group: Group<Message, L>): Promise<void> {
    const { audience, stop } = group;
    const matches = (event: HealthEventPointer) => audience.matches(event);
    try {
      for await (const events of stream.batches({ after: group.position, matches, signal: stop.signal })) {
        for await (const rendered of renderAll(group, events)) {
          const last = rendered.at(-1)?.event.position ?? 0;
          // From here on, whoever is not live yet reads these from the log, and so nobody is told who is not asked about.
          group.position = last;
          const members = [...group.members].filter(({ isLive, position }) => isLive && position < last);
          await exclude(group, members);
          for (const { event, message } of rendered) await tell(group, event, message);
        }
      }
      endAll(group, null);
    } catch (error) {
      endAll(group, error);
    }
  }

  function open(key: string, audience: Audience<Message, L>): Group<Message, L> {
    const group: Group<Message, L> = {
      key,
      audience,
      members: new Set(),
      position: 0,
      stop: new AbortController(),
      ready: Promise.resolve(),
      rendered: new LRUCache({
        max: MAX_RENDERED,
        maxSize: MAX_RENDERED_BYTES,
        ttl: RENDERED_MS,
        noUpdateTTL: true,
        // Otherwise it would be looked at again only when somebody asks for it.
        ttlAutopurge: true,
      }),
    };
    group.ready = latest().then((position) => {
      group.position = position;
      void run(group);
    });
    // Each member awaits it.
    group.ready.catch(() => undefined);
    groups.set(key, group);
    return group;
  }

  /**
   * Tells a member the next of what is stored: one message at least, so that it comes further whatever it says of itself.
   *
   * @returns whether it can be told more; it must have read what it was sent before. What was made of events that it was
   * not told is not held for it meanwhile.
   */
  async function tellStored(group: Group<Message, L>, member: Member<L>): Promise<boolean> {
    const { listener } = member;
    const events = await log.after(member.position, READ_BATCH);
    const matching = events.filter((event) => group.audience.matches(event));
    let hasTold = false;
    for await (const rendered of renderAll(group, matching)) {
      await exclude(group, [member]);
      for (const { event, message } of rendered) {
        if (member.isGone || (hasTold && listener.isSlow())) return false;
        member.position = event.position;
        if (message === null) continue;
        listener.send(message);
        hasTold = true;
      }
    }
    member.position = Math.max(member.position, events.at(-1)?.position ?? 0);
    return true;
  }

  /** Tells a member what is stored, until it has come as far as the live ones. */
  async function catchUp(group: Group<Message, L>, member: Member<L>): Promise<void> {
    const { listener } = member;
    await group.ready;
    member.position = listener.after ?? (await latest());
    // A cursor is looked up in any case, which tells whether it is still good.
    let mustRead = listener.after !== null;
    while (!member.isGone) {
      if (!mustRead && member.position >= group.position) {
        member.isLive = true;
        return;
      }
      mustRead = false;
      if (!(await tellStored(group, member)) && !member.isGone) await listener.drained();
    }
  }

  return {
    join: (key, makeAudience, listener) => {
      const group = groups.get(key) ?? open(key, makeAudience());
      const member: Member<L> = { listener, position: 0, isLive: false, isGone: false };
      group.members.add(member);
      catchUp(group, member).catch((error: unknown) => end(group, member, error));
      return () => leave(group, member);
    },
  };
}

import { type ExecutionResult, GraphQLError } from 'graphql';
import { isAsyncIterable, type Plugin } from 'graphql-yoga';
import type { Principal } from '../domain/principal.js';
import type { Context } from '../graphql/context.js';

/** Streams that may be open at once in this process. */
export interface StreamLimits {
  all: number;
  perTenant: number;
  perFrontendSession: number;
}

const tooMany = (whose: string) =>
  new GraphQLError(`${whose} has as many streams open as it may. End one, or try again later.`, {
    extensions: { code: 'TOO_MANY_STREAMS' },
  });

/** Calls `onEnd` once when a stream is over: at its end, by a failure, or because it is left. */
function whenOver(results: AsyncIterableIterator<ExecutionResult>, onEnd: () => void) {
  return {
    next: async (): Promise<IteratorResult<ExecutionResult>> => {
      try {
        const result = await results.next();
        if (result.done === true) onEnd();
        return result;
      } catch (error) {
        onEnd();
        throw error;
      }
    },
    // Not a generator: one would be left only when the next result comes.
    return: async (): Promise<IteratorResult<ExecutionResult>> => {
      onEnd();
      return (await results.return?.()) ?? { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** Counts streams from before they begin until they are over. */
export interface StreamCounter {
  /** @returns what refuses one more stream of this principal; null where there is room. */
  refuse(principal: Principal): GraphQLError | null;
  /** Takes a place, be there room or not. @returns gives it back; more than once is once. */
  enter(principal: Principal): () => void;
}

export function createStreamCounter({ all, perTenant, perFrontendSession }: StreamLimits): StreamCounter {
  const counts = new Map<string, number>();

  /** Where a stream counts, with the limit there and whose it is. */
  const placesOf = ({ kind, id, tenantId }: Principal): [name: string, limit: number, whose: string][] => [
    ...(kind === 'FRONTEND_SESSION' ? [[`session:${id}`, perFrontendSession, 'The session'] as never] : []),
    ...(tenantId === null ? [] : [[`tenant:${tenantId}`, perTenant, 'The tenant'] as never]),
    ['all', all, 'This process'],
  ];

  function add(name: string, change: number): void {
    const count = (counts.get(name) ?? 0) + change;
    if (count === 0) counts.delete(name);
    else counts.set(name, count);
  }

  return {
    refuse: (principal) => {
      const full = placesOf(principal).find(([name, limit]) => (counts.get(name) ?? 0) >= limit);
      return full === undefined ? null : tooMany(full[2]);
    },
    enter: (principal) => {
      const places = placesOf(principal);
      for (const [name] of places) add(name, 1);
      let isOver = false;
      return () => {
        if (isOver) return;
        isOver = true;
        for (const [name] of places) add(name, -1);
      };
    },
  };
}

/** Refuses streams that are too many, at the engine's own door and over WebSocket; shared ones are counted apart. */
export const createStreamLimits = (streams: StreamCounter): Plugin<Context> => ({
  onSubscribe: ({ args, subscribeFn, setSubscribeFn, setResultAndStopExecution }) => {
    const { principal } = args.contextValue as Context;
    const refused = streams.refuse(principal);
    if (refused !== null) return setResultAndStopExecution({ errors: [refused] } as never);
    const end = streams.enter(principal);
    return setSubscribeFn(async (given) => {
      let result: unknown;
      try {
        result = await subscribeFn(given as never);
      } catch (error) {
        end();
        throw error;
      }
      if (isAsyncIterable(result)) return whenOver(result as AsyncIterableIterator<ExecutionResult>, end);
      end();
      return result;
    });
  },
});

import { type ExecutionResult, GraphQLError } from 'graphql';
import type { PrincipalDirectory, PrincipalEnd } from '../domain/principal-directory.js';
import type { Principal } from '../domain/principal.js';

type Results = AsyncIterableIterator<ExecutionResult>;

const WORDS = { SERVER_KEY: 'server key', FRONTEND_SESSION: 'frontend session' } as const;
const CODES = { SERVER_KEY: 'SERVER_KEY', FRONTEND_SESSION: 'SESSION' } as const;

/** What the holder of a stream is told when it ends with them. */
export function endOf({ kind }: Pick<Principal, 'kind'>, end: PrincipalEnd): { message: string; code: string } {
  const verb = end === 'EXPIRED' ? 'has expired' : 'was revoked';
  return { message: `The ${WORDS[kind]} ${verb}.`, code: `${CODES[kind]}_${end}` };
}

/** Ends a stream together with whoever opened it: with one last result that says why. */
export function endWithPrincipal(results: Results, principal: Principal, principals: PrincipalDirectory): Results {
  let last: ExecutionResult | undefined;
  let wake: (() => void) | undefined;
  const unwatch = principals.watch(principal, (end) => {
    const { message, code } = endOf(principal, end);
    last = { errors: [new GraphQLError(message, { extensions: { code } })] };
    wake?.();
    void results.return?.();
  });
  let isOver = false;
  const finish = () => {
    isOver = true;
    unwatch();
  };

  async function next(): Promise<IteratorResult<ExecutionResult>> {
    if (isOver) return { done: true, value: undefined };
    const ended = new Promise<void>((resolve) => (wake = resolve));
    const result = last === undefined ? await Promise.race([results.next(), ended]) : undefined;
    if (last !== undefined) {
      finish();
      return { done: false, value: last };
    }
    if (result === undefined || result.done === true) finish();
    return result ?? { done: true, value: undefined };
  }

  return {
    next,
    // Not a generator: one would be left only when the next result comes.
    return: async () => {
      finish();
      return (await results.return?.()) ?? { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

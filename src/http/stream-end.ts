import { type ExecutionResult, GraphQLError } from 'graphql';
import { isAsyncIterable, type Plugin } from 'graphql-yoga';
import type { Context, GraphQLDeps } from '../graphql/context.js';
import { endWithPrincipal } from './principal-stream.js';

/** A stream that fails, or whose holder comes to an end, says so in one last result and ends, over every transport. */
export const createStreamEnds = ({ principals }: GraphQLDeps): Plugin<Context> => ({
  onSubscribe: ({ args }) => ({
    onSubscribeResult: ({ result, setResult }) => {
      if (!isAsyncIterable(result)) return;
      const { principal } = args.contextValue as Context;
      const stream = endWithErrors(result as AsyncIterableIterator<ExecutionResult>);
      setResult(endWithPrincipal(stream, principal, principals));
    },
  }),
});

const isMissing = (data: ExecutionResult['data']): boolean =>
  Object.values(data ?? {}).every((value) => value === null);

function endWithErrors(results: AsyncIterableIterator<ExecutionResult>): AsyncIterableIterator<ExecutionResult> {
  let failed = false;
  return {
    next: async () => {
      if (failed) return { done: true, value: undefined };
      try {
        const result = await results.next();
        // What cannot be read is not passed over: whoever comes back for it finds it behind the last cursor.
        failed = result.done !== true && result.value.errors !== undefined && isMissing(result.value.data);
        return result;
      } catch (error) {
        failed = true;
        if (!(error instanceof GraphQLError)) throw error;
        return { done: false, value: { errors: [error] } };
      }
    },
    // Not a generator: one would be left only when the next result comes.
    return: async () => (await results.return?.()) ?? { done: true, value: undefined },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

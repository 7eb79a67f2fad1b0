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

function endWithErrors(results: AsyncIterableIterator<ExecutionResult>): AsyncIterableIterator<ExecutionResult> {
  let failed = false;
  return {
    next: async () => {
      if (failed) return { done: true, value: undefined };
      try {
        return await results.next();
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

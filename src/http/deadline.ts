import { BREAK, type DocumentNode, type ExecutionResult, GraphQLError, visit } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import type { Context } from '../graphql/context.js';

/** Requests to the provider that one operation makes one after the other, at most. */
const PROVIDER_REQUESTS = 3;

/** Fields that wait for the provider, or for a refresh that somebody else is at. */
const WAITING: ReadonlySet<string> = new Set([
  'credential',
  'hostOfMeeting',
  'localRecordingToken',
  'zakToken',
  'onBehalfOfToken',
  'completeAuthorization',
  'connectServerToServer',
  'importGrant',
  'revokeInstallation',
  'revokeUserConnection',
  'refreshGrant',
  'checkGrant',
]);

const waiting = new WeakMap<DocumentNode, boolean>();

function isWaiting(document: DocumentNode): boolean {
  let found = waiting.get(document);
  if (found !== undefined) return found;
  found = false;
  visit(document, {
    Field: ({ name }) => {
      if (!WAITING.has(name.value)) return undefined;
      found = true;
      return BREAK;
    },
  });
  waiting.set(document, found);
  return found;
}

type Result = ExecutionResult | PromiseLike<ExecutionResult>;

/** How long the execution of one operation may take. */
export interface Deadline {
  /**
   * Runs an execution and answers in its place when its time is over. What has begun ends by the limits of its own
   * (statements, requests to the provider); `context.deadline` keeps further fields from beginning.
   */
  run(document: DocumentNode, context: Context, execute: () => Result): Result;
}

export interface DeadlineOptions {
  /** Longest an operation takes. */
  requestMs: number;
  /** Longest a request to the provider takes; operations that wait for it have that time besides. */
  providerMs: number;
}

const exceeded = (seconds: number) =>
  new GraphQLError(`The operation took more than ${seconds} seconds. What of it had begun may still be done.`, {
    extensions: { code: 'DEADLINE_EXCEEDED', http: { status: 504 } },
  });

export function createDeadline({ requestMs, providerMs }: DeadlineOptions): Deadline {
  return {
    run: (document, context, execute) => {
      const state = { isOver: false };
      context.deadline = state;
      const result = execute();
      if (!('then' in result)) return result;
      const ms = isWaiting(document) ? requestMs + PROVIDER_REQUESTS * providerMs : requestMs;
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          state.isOver = true;
          resolve({ errors: [exceeded(ms / 1_000)] });
        }, ms);
        result.then(
          (value) => {
            clearTimeout(timer);
            resolve(value);
          },
          (error: unknown) => {
            clearTimeout(timer);
            reject(error as Error);
          },
        );
      });
    },
  };
}

/** Sets the deadline at the engine's own door and over WebSocket; the direct way sets it by itself. */
export const createDeadlinePlugin = (deadline: Deadline): Plugin<Context> => ({
  onExecute: ({ executeFn, setExecuteFn, args }) =>
    setExecuteFn((given) =>
      deadline.run(given.document, args.contextValue as Context, () => executeFn(given as never) as Result),
    ),
});

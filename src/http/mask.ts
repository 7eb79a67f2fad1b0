import { PothosValidationError } from '@pothos/core';
import { GraphQLError, type GraphQLErrorExtensions, type GraphQLFormattedError } from 'graphql';
import { DatabaseBusyError } from '../database/connection-shares.js';
import { isOutage } from '../database/outage.js';
import { AuditUnavailableError } from '../domain/audit.js';
import type { Log } from '../log.js';
import { VaultError } from '../vault/errors.js';
import { ERROR_CODES } from './error-codes.js';

/** Tells the HTTP layer that the request was wrong: 400, unless the answer's media type leaves that to the body. */
export const BAD_REQUEST = { spec: true, status: 400 };

export const extended = (error: GraphQLError, extensions: GraphQLErrorExtensions): GraphQLError =>
  new GraphQLError(error.message, {
    nodes: error.nodes ?? null,
    source: error.source ?? null,
    positions: error.positions ?? null,
    path: error.path ?? null,
    extensions: { ...error.extensions, ...extensions },
  });

const SUGGESTION = / Did you mean .*\?$/s;

/**
 * An error that was meant for the caller, with a code of the list; null for any other. One without a code is a library's:
 * it tells of an argument where it points into the document or comes from a check, and else of a value that could not be
 * answered.
 */
function publicError(error: GraphQLError, hideSuggestions: boolean): GraphQLError | null {
  const { code, http } = error.extensions as { code?: unknown; http?: { status?: unknown } };
  // The executor's way to say that a variable was wrong; what has no place in the document was refused before.
  const isVariable = http?.status === 400 && error.locations !== undefined;
  if (typeof code === 'string' && !isVariable) return ERROR_CODES.has(code) ? error : null;
  const origin = error.originalError instanceof GraphQLError ? error.originalError : error;
  const isArgument = origin.nodes !== undefined || origin instanceof PothosValidationError;
  if (error.path !== undefined && !isArgument) return null;
  const coded = extended(error, { code: code ?? 'BAD_USER_INPUT', ...(isVariable ? { http: BAD_REQUEST } : {}) });
  if (hideSuggestions) coded.message = coded.message.replace(SUGGESTION, '');
  return coded;
}

/** PostgreSQL's code for a text with a character that it cannot hold, of which zero is the only one that gets so far. */
const UNSTORABLE_TEXT = '22021';

/** Whether the database refused a text of the caller's, through either of the two ways to it. */
function isUnstorableText(error: unknown): boolean {
  const { code, meta } = error as {
    code?: unknown;
    meta?: { driverAdapterError?: { cause?: { originalCode?: unknown } } };
  };
  return code === UNSTORABLE_TEXT || meta?.driverAdapterError?.cause?.originalCode === UNSTORABLE_TEXT;
}

const BUSY = { message: 'Too much is asked at once. Try again later.', code: 'RATE_LIMITED' };

/** What a caller may know of a failure that is ours: a sentence, and a code to branch on. */
function describeFailure(error: unknown): [message: string, code: string] {
  if (error instanceof VaultError) return ['Stored secrets cannot be opened at the moment.', 'VAULT_UNAVAILABLE'];
  if (error instanceof AuditUnavailableError) {
    return ['The audit trail cannot be written at the moment, so nothing was done. Try again.', 'AUDIT_UNAVAILABLE'];
  }
  if (isOutage(error)) return ['The database cannot be reached at the moment. Try again.', 'UNAVAILABLE'];
  return ['Unexpected error.', 'INTERNAL_SERVER_ERROR'];
}

/**
 * Lets through what was meant for the caller and replaces everything else by one fixed error, whatever NODE_ENV says:
 * messages of drivers and libraries can hold statements, values and secrets.
 */
export function createMask({ log, hideSuggestions }: { log: Log; hideSuggestions: boolean }) {
  return (error: unknown): Error => {
    const original = error instanceof GraphQLError ? error.originalError : error;
    if (error instanceof GraphQLError && (original === undefined || original instanceof GraphQLError)) {
      const known = publicError(error, hideSuggestions);
      if (known !== null) return known;
    }
    const { nodes, path } = error instanceof GraphQLError ? error : { nodes: null, path: null };
    if (original instanceof Error && isUnstorableText(original)) {
      const message = 'A text holds a character that no stored text can have.';
      return new GraphQLError(message, {
        nodes: nodes ?? null,
        path: path ?? null,
        extensions: { code: 'BAD_USER_INPUT' },
      });
    }
    const cause = original ?? error;
    if (cause instanceof DatabaseBusyError) {
      // The caller's own doing, and told to nobody else: a flood must not fill the log.
      log.debug('an operation was refused', { code: BUSY.code });
      const extensions = { code: BUSY.code, retryAfterSeconds: cause.retryAfterSeconds };
      return new GraphQLError(BUSY.message, { nodes: nodes ?? null, path: path ?? null, extensions });
    }
    const [message, code] = describeFailure(cause);
    log.error('an operation failed', { code }, cause);
    return new GraphQLError(message, { nodes: nodes ?? null, path: path ?? null, extensions: { code } });
  };
}

/** As every transport writes an error: what is said to the HTTP layer stays here. */
export function formatError(error: GraphQLError): GraphQLFormattedError {
  const { http: _http, ...extensions } = error.extensions;
  return { ...error.toJSON(), extensions };
}

/**
 * Every code that an error at the top level of an answer can have. An error with another one is answered like one that
 * nobody foresaw. Outcomes of the schema (`union …Result`) are data, and none of these.
 */
export const ERROR_CODES: ReadonlySet<string> = new Set([
  // The request cannot be understood.
  'BAD_REQUEST',
  'UNSUPPORTED_MEDIA_TYPE',
  'PAYLOAD_TOO_LARGE',
  'GRAPHQL_PARSE_FAILED',
  'GRAPHQL_VALIDATION_FAILED',
  'OPERATION_RESOLUTION_FAILURE',
  'BAD_USER_INPUT',
  // The caller is not let in, or may not.
  'UNAUTHENTICATED',
  'TOO_MANY_ATTEMPTS',
  'SERVER_KEY_IN_BROWSER',
  'ORIGIN_NOT_ALLOWED',
  'FORBIDDEN',
  'INTROSPECTION_DISABLED',
  'PERSISTED_DOCUMENT_NOT_FOUND',
  'PERSISTED_DOCUMENT_REQUIRED',
  // It asks for too much.
  'COST_LIMIT_EXCEEDED',
  'DEADLINE_EXCEEDED',
  'TOO_MANY_STREAMS',
  'RATE_LIMITED',
  // Its stream is over.
  'SESSION_EXPIRED',
  'SESSION_REVOKED',
  'SERVER_KEY_EXPIRED',
  'SERVER_KEY_REVOKED',
  'RESYNC_REQUIRED',
  'SLOW_CONSUMER',
  // Something on this side failed.
  'VAULT_UNAVAILABLE',
  'AUDIT_UNAVAILABLE',
  'UNAVAILABLE',
  'INTERNAL_SERVER_ERROR',
]);

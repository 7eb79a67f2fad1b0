import type { IncomingHttpHeaders } from 'node:http';
import type { Context } from '@opentelemetry/api';
import { LRUCache } from 'lru-cache';
import { apart, inSpan, type SpanFacts } from '../diagnostics.js';
import type { Database, Sql, SqlStatement } from '../database/database.js';
import type { PrismaClient } from '../generated/prisma/client.js';
import type { Keep } from '../spool/spool.js';
import type { Tracers } from './tracers.js';
import type { Spans } from './spans.js';

export function createTracers(spans: Spans, continued: (headers: IncomingHttpHeaders) => Context): Tracers {
  const inTrace = (): { trace_id: string; span_id: string } | undefined => {
    const ids = spans.current();
    return ids === null ? undefined : { trace_id: ids.traceId, span_id: ids.spanId };
  };
  return {
    log: (log) => ({
      debug: (message, fields) => log.debug(message, fields),
      info: (message, fields) => log.info(message, { ...fields, ...inTrace() }),
      warn: (message, fields) => log.warn(message, { ...fields, ...inTrace() }),
      error: (message, fields, error) => log.error(message, { ...fields, ...inTrace() }, error),
    }),
    database: (database) => traceDatabase(database, tracePrisma(database.prisma)),
    spool: (spool) => ({
      ...spool,
      prepare: async () => {
        const keep = await spool.prepare();
        const traced: Keep = async (entry) => inSpan('spool', () => keep(entry));
        return traced;
      },
    }),
    healthEvents: (stream) => ({
      subscribe: (options) => stepApart(stream.subscribe(options)),
      batches: (options) => stepApart(stream.batches(options)),
    }),
    authenticate: (authenticate) => async (authorization, from) => {
      const authentication = await authenticate(authorization, from);
      if ('principal' in authentication && authentication.principal.kind === 'SERVER_KEY') {
        spans.adopt(continued(from.headers));
      }
      return authentication;
    },
    jobs: (jobs) =>
      jobs.map((job) => ({
        ...job,
        run: async (signal) =>
          inSpan(
            'job',
            () => job.run(signal),
            () => ({ job: job.name }),
          ),
      })),
  };
}

/** What one listener's step begins may serve all others, for as long as any of them is there. */
async function* stepApart<T>(inner: AsyncGenerator<T, void, void>): AsyncGenerator<T, void, void> {
  try {
    for (;;) {
      const step = await apart(() => inner.next());
      if (step.done === true) return;
      yield step.value;
    }
  } finally {
    await inner.return();
  }
}

const traceSql = (sql: Sql): Sql => ({
  query: async <Row>(statement: SqlStatement): Promise<Row[]> =>
    inSpan(
      'statement',
      () => sql.query<Row>(statement),
      () => summaryOf(statement.text),
    ),
});

const traceDatabase = (database: Database, prisma: PrismaClient): Database => ({
  ...database,
  ...traceSql(database),
  prisma,
  transaction: async (run) => inSpan('transaction', () => database.transaction((tx) => run(traceSql(tx)))),
  tenant: (tenantId) => {
    const view = database.tenant(tenantId);
    return {
      ...view,
      ...traceSql(view),
      read: (run) => view.read((reads) => run({ ...traceSql(reads), prisma: tracedReads(reads.prisma) })),
      transaction: async (run) => inSpan('transaction', () => view.transaction((tx) => run(traceSql(tx)))),
    };
  },
  shareOf: (holder) => traceDatabase(database.shareOf(holder), prisma),
});

function tracePrisma(prisma: PrismaClient): PrismaClient {
  const extended = prisma.$extends({
    query: {
      $allModels: {
        $allOperations: async ({ model, operation, args, query }) =>
          inSpan(
            'statement',
            () => query(args),
            () => ({ statement: operation, table: model }),
          ),
      },
    },
  });
  return extended as unknown as PrismaClient;
}

/** One client serves the reads of all tenants. */
const traced = new WeakMap<PrismaClient, PrismaClient>();

function tracedReads(prisma: PrismaClient): PrismaClient {
  const known = traced.get(prisma) ?? tracePrisma(prisma);
  traced.set(prisma, known);
  return known;
}

/** Texts of statements are few: they are written in this program, and values are kept apart from them. */
const summaries = new LRUCache<string, SpanFacts>({ max: 500 });

/** What a statement does, and the first table that it names; nothing else of its text, and none of its values. */
export function summaryOf(text: string): SpanFacts {
  let summary = summaries.get(text);
  if (summary === undefined) {
    const [statement = 'SELECT'] = /\b(INSERT|UPDATE(?= [a-z])|DELETE)\b/.exec(text) ?? [];
    const table = /\b(?:FROM|INTO|UPDATE) ([a-z_]+)\b(?!\s*[(.])/.exec(text)?.[1];
    summary = { statement, ...(table === undefined ? {} : { table }) };
    summaries.set(text, summary);
  }
  // A copy: facts may be added to it.
  return { ...summary };
}

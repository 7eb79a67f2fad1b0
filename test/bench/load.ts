// Sends requests for a while and prints one line of JSON. A process of its own, so that it does not share the server's core.
import autocannon from 'autocannon';

interface Plan {
  url: string;
  connections: number;
  seconds: number;
  headers: Record<string, string>;
  requests: { method: 'GET' | 'POST'; path: string; body?: string }[];
}

async function run(plan: Plan): Promise<void> {
  const result = await autocannon({
    url: plan.url,
    connections: plan.connections,
    duration: plan.seconds,
    headers: plan.headers,
    requests: plan.requests,
  });
  process.send?.({
    rps: result.requests.average,
    total: result.requests.total,
    p50: result.latency.p50,
    p99: result.latency.p99,
    failed: result.non2xx + result.errors + result.timeouts,
  });
}

process.on('message', (plan: Plan) => void run(plan));

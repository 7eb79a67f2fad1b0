/** Waits until `attempt` holds, asking again and again; the test's own time limit ends it. */
export async function until(attempt: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await attempt())) await new Promise((resolve) => setTimeout(resolve, 20));
}

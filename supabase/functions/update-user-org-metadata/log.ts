type Level = "info" | "warn" | "error";

/** Logs one event with its fields. Fields never hold an email, a token or a key. */
export type Log = (level: Level, event: string, fields?: Record<string, unknown>) => void;

/** Writes one JSON object per line: level, event (snake_case), and the fields. */
export function createLog(write: (line: string) => void): Log {
  return (level, event, fields = {}) => write(JSON.stringify({ level, event, ...fields }));
}

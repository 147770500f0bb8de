import { describe, expect, test } from "vitest";
import { formatReport } from "../../cli/users-report.ts";

describe("formatReport", () => {
  test("quotes what RFC 4180 wants quoted, and leaves the rest as it is", () => {
    expect(formatReport([{ user_id: "a", outcome: "failed", reason: 'says "no", twice\nor more' }, {
      user_id: "b",
      outcome: "failed",
      reason: "says no",
    }])).toBe('user_id,outcome,reason\r\na,failed,"says ""no"", twice\nor more"\r\nb,failed,says no\r\n');
  });

  test.each(["=1+1", "+1", "-1", "@SUM(A1)"])("makes a text of %s", (reason) => {
    expect(formatReport([{ user_id: "a", outcome: "failed", reason }])).toContain(`a,failed,'${reason}\r\n`);
    expect(formatReport([{ user_id: "a", outcome: "failed", reason: `x${reason}` }])).toContain(
      `a,failed,x${reason}\r\n`,
    );
  });

  test("has the header when there are no problems", () => {
    expect(formatReport([])).toBe("user_id,outcome,reason\r\n");
  });
});

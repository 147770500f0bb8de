-- pg-delta: transaction=false
-- Purpose: the last step: the fillers go, and with them everything that moved the application and does not serve it: the schema
--          org_migration, and of tenancy the plan, the steps and the way back. A migration of its own, dated after all others.
-- Touches: the filler trigger of each org-scoped table, and our own two schemas. No row of the application.
-- Locks:   SHARE ROW EXCLUSIVE on one table at a time, for about a millisecond.
-- Undo:    none: tenancy.roll_back goes, too.
-- Before:  select * from tenancy.filled_rows, twice, a day apart: while a number grows, something still inserts without org_id. Save
--          org_migration.backfill_conflicts, if anyone may ask later who decided about a row.

set search_path = '';
set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$
begin
    if to_regnamespace('org_migration') is not null then
        -- Nothing is switched off before everything is in place, and nothing inserts without org_id any more, as far as tenancy.review can
        -- tell. Where you know better: despite_findings => true, in both calls.
        perform org_migration.assert_finishable(despite_findings => false, with_fillers => true);
        update tenancy.settings set fill_org_id = false;
        commit;
        while tenancy.advance('filler') loop commit; end loop;
        perform tenancy.finish(despite_findings => false);
    end if;
end
$$;

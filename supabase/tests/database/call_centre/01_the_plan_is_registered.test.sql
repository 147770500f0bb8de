begin;
set local role postgres;
set local search_path = public, extensions;
select plan(5);

select set_eq(
    $$ select table_name from tenancy.registry where scope = 'org' and priority = 'critical' $$,
    $$
        values
            ('call_logs'),
            ('call_tracking'),
            ('calls'),
            ('leads'),
            ('agents'),
            ('knowledge_base'),
            ('knowledge_base_changelog'),
            ('integrations'),
            ('recording_upload_queue'),
            ('imports'),
            ('outreach_templates'),
            ('campaign_metrics'),
            ('phone_blacklist'),
            ('hallucination_flags'),
            ('kb_sync_log')
    $$,
    'the 15 critical tables of the plan are org-scoped'
);
select set_eq(
    $$ select table_name from tenancy.registry where scope = 'org' and priority = 'secondary' $$,
    $$
        values
            ('agent_configurations'),
            ('campaign_phone_numbers'),
            ('campaigns'),
            ('cold_call_logs'),
            ('contacts'),
            ('call_lists'),
            ('dnc_list'),
            ('embeddings'),
            ('knowledge_base_chunks'),
            ('knowledge_base_documents'),
            ('notification_history'),
            ('notification_templates'),
            ('phone_assistants'),
            ('sentiment_analysis'),
            ('telephony_audit_log'),
            ('user_active_calls'),
            ('user_phone_numbers'),
            ('user_twilio_subaccounts'),
            ('usage_events'),
            ('usage_records'),
            ('compliance_audit_logs'),
            ('consent_records'),
            ('credit_transactions'),
            ('customer_twilio_keys'),
            ('daily_lead_uploads'),
            ('notification_rate_limits'),
            ('onboarding_events'),
            ('payment_events_log'),
            ('payments'),
            ('billing_cycles')
    $$,
    'and so are its 30 secondary tables'
);
select set_eq(
    $$ select table_name from tenancy.registry where scope = 'excluded' $$,
    $$
        values
            ('profiles'),
            ('user_profiles'),
            ('user_credits'),
            ('user_subscriptions'),
            ('customers'),
            ('billing_plans'),
            ('pricing_tiers'),
            ('voice_options'),
            ('campaign_templates')
    $$,
    'its 9 other tables are excluded'
);
select is(
    (select count(*)::integer from tenancy.org_scoped_tables),
    45,
    'every org-scoped table exists'
);
select is_empty(
    $$
        select child.relation
        from tenancy.references_between_tables as reference
        join tenancy.org_scoped_tables as child
            on child.relation = reference.relation
        join tenancy.org_scoped_tables as parent
            on parent.relation = reference.parent
        where parent.position > child.position
    $$,
    'parents come before the tables that reference them'
);

select * from finish();
rollback;
